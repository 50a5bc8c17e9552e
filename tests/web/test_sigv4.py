"""Signature Version 4 against Amazon's published example, and what breaks a signature."""

from __future__ import annotations

from calendar import timegm
from dataclasses import replace

import pytest

from turnsvr.web import sigv4
from turnsvr.web.refusal import Refused

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SIGNATURE = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
SCOPE = "20150830/us-east-1/service/aws4_request"
AT = float(timegm((2015, 8, 30, 12, 36, 0)))
"""The case `get-vanilla` of Amazon's test suite for signers."""


def authorization(signature: str = SIGNATURE, scope: str = SCOPE, headers: str = "host;x-amz-date") -> str:
    return f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, SignedHeaders={headers}, Signature={signature}"


def request(**headers: str) -> sigv4.SignedRequest:
    usual = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z", "authorization": authorization()}
    return sigv4.SignedRequest("GET", "/", "", usual | headers, b"")


def verify(signed: sigv4.SignedRequest, *, secret: str = SECRET, at: float = AT) -> None:
    sigv4.verify(sigv4.read(signed), signed, secret, at)


def test_the_published_example() -> None:
    assert sigv4.read(request()).access_key == "AKIDEXAMPLE"
    verify(request())
    verify(request(), at=AT + 899)
    verify(request(), at=AT - 899)


@pytest.mark.parametrize(
    "broken",
    [
        replace(request(), method="POST"),
        replace(request(), raw_path="/a"),
        replace(request(), query="a=b"),
        replace(request(), body=b"x"),
        request(host="other.example"),
        request(authorization=authorization("0" * 64)),
        request(authorization=authorization(scope="20150831/us-east-1/service/aws4_request")),
        request(authorization=authorization(headers="x-amz-date")),
        request(authorization="AWS4-HMAC-SHA256 nonsense"),
        request(authorization=""),
        request(**{"x-amz-date": "yesterday"}),
        request(**{"x-amz-date": "20150830T123601Z"}),
    ],
)
def test_what_was_changed_is_refused(broken: sigv4.SignedRequest) -> None:
    with pytest.raises(Refused) as caught:
        verify(broken)
    assert caught.value.status == 401


@pytest.mark.parametrize("at", [AT + 901, AT - 901])
def test_old_signatures_are_refused(at: float) -> None:
    with pytest.raises(Refused, match="expired"):
        verify(request(), at=at)


def test_another_secret_is_refused() -> None:
    with pytest.raises(Refused, match="wrong"):
        verify(request(), secret=f"{SECRET}x")
