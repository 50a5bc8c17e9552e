"""Client libraries that nobody here wrote, with nothing changed but their base URL."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError as BotoError
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from tests.conftest import PATIENCE
from tests.web.conftest import KEY, Site
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import render


@pytest.fixture(autouse=True)
def _quiet_clients() -> None:
    logging.getLogger("botocore").setLevel(logging.WARNING)


async def assert_relays(url: str, username: str, password: str) -> None:
    report = await probe(url, username, password, insecure=True, timeout=PATIENCE)
    assert report.ok, render(report)


def twilio_token(url: str, key: str, ttl: int) -> Any:
    http = TwilioHttpClient(pool_connections=False)
    client = Client("AC0123456789abcdef0123456789abcdef", key, http_client=http)
    client.api.base_url = url
    return client.tokens.create(ttl=ttl)


async def test_twilio(site: Site) -> None:
    token = await asyncio.to_thread(twilio_token, site.url, KEY, 600)
    assert token.account_sid == "AC0123456789abcdef0123456789abcdef"
    assert token.ttl == "600"
    assert token.date_created.tzinfo is not None
    relay = next(server for server in token.ice_servers if "transport=udp" in server["urls"])
    assert (relay["username"], relay["credential"]) == (token.username, token.password)
    await assert_relays(relay["urls"], token.username, token.password)


async def test_twilio_is_told_why_not(site: Site) -> None:
    with pytest.raises(TwilioRestException) as caught:
        await asyncio.to_thread(twilio_token, site.url, "wrong", 600)
    assert caught.value.status == 401
    assert caught.value.code == 20003
    assert "the API key is not known" in str(caught.value)


def aws_config(url: str, name: str, key: str) -> Any:
    session = botocore.session.get_session()
    client = session.create_client(
        "kinesis-video-signaling",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id=name,
        aws_secret_access_key=key,
        config=Config(retries={"max_attempts": 0}, proxies={}),
    )
    try:
        return client.get_ice_server_config(
            ChannelARN="arn:aws:kinesisvideo:eu-central-1:123456789012:channel/name/1234567890123",
            ClientId="viewer",
            Service="TURN",
            Username="alice",
        )
    finally:
        client.close()


async def test_aws_with_its_signature(site: Site) -> None:
    answer = await asyncio.to_thread(aws_config, site.url, "shop", KEY)
    (server,) = answer["IceServerList"]
    assert server["Username"].endswith(":shop:alice")
    assert server["Ttl"] == 7200
    await assert_relays(server["Uris"][0], server["Username"], server["Password"])


@pytest.mark.parametrize(("name", "key"), [("shop", "another key, just as long"), ("nobody", KEY)])
async def test_aws_is_told_why_not(site: Site, name: str, key: str) -> None:
    with pytest.raises(BotoError) as caught:
        await asyncio.to_thread(aws_config, site.url, name, key)
    assert caught.value.response["Error"]["Code"] == "NotAuthorizedException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 401
