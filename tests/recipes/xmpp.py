"""A client of XMPP that asks its server for STUN and TURN servers (XEP-0215)."""

from __future__ import annotations

import asyncio
import base64
from xml.etree import ElementTree

from tests.conftest import PATIENCE

SERVICES = "{urn:xmpp:extdisco:2}services"
STREAM = (
    b"<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams'>"
)
ANONYMOUS = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>"


def password_of(user: str, password: str) -> bytes:
    """The element that proves a user by a password."""
    proof = base64.b64encode(f"\0{user}\0{password}".encode())
    return b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + proof + b"</auth>"


async def services_of(port: int, authentication: bytes) -> list[dict[str, str]]:
    """What the server of example.org tells a client that asks for external services (XEP-0215)."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:  # it is still starting
                await asyncio.sleep(0.05)
            else:
                break
        for stanza, end in (
            (STREAM, b"</stream:features>"),
            (authentication, b"<success"),
            (STREAM, b"</stream:features>"),
            (b"<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", b"</iq>"),
            (b"<iq type='get' id='2' to='example.org'><services xmlns='urn:xmpp:extdisco:2'/></iq>", b"</iq>"),
        ):
            writer.write(stanza)
            answer = await reader.readuntil(end)
        writer.close()
        await writer.wait_closed()
    found = ElementTree.fromstring(answer[answer.index(b"<iq") :].decode()).find(SERVICES)
    assert found is not None
    return [dict(each.attrib) for each in found]
