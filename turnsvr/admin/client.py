"""Calls the admin interface of a server, over its Unix socket or over TCP with its token."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx

from turnsvr.admin import NoServer, Refused

_TIMEOUT = 10.0
"""Seconds within which a server answers anything."""
_PAGE = 1_000

Answer = dict[str, Any]
"""One of the objects that models.py describes."""


class AdminClient:
    """One server. Calls raise NoServer and Refused."""

    def __init__(self, http: httpx.Client, name: str) -> None:
        self.name = name
        """Where it is, for people."""
        self._http = http

    @classmethod
    def on_socket(cls, path: Path) -> AdminClient:
        transport = httpx.HTTPTransport(uds=str(path))
        http = httpx.Client(transport=transport, base_url="http://localhost", trust_env=False, timeout=_TIMEOUT)
        return cls(http, str(path))

    @classmethod
    def at_url(cls, url: str, token: str) -> AdminClient:
        """Certificates are judged by the system's authorities, or those of the variable SSL_CERT_FILE."""
        http = httpx.Client(
            base_url=url,
            headers={b"Authorization": b"Bearer " + token.encode()},
            verify=ssl.create_default_context(),
            trust_env=False,
            timeout=_TIMEOUT,
        )
        return cls(http, url)

    def close(self) -> None:
        self._http.close()

    def status(self) -> Answer:
        return self._call("GET", "/status")

    def sessions(self, *, limit: int = _PAGE, **query: Any) -> Answer:
        """One page; query as GET /sessions has it, what is None left out."""
        return self._call("GET", "/sessions", limit=limit, **query)

    def every_session(self, **query: Any) -> Iterator[Answer]:
        """All pages, one session after the other."""
        cursor: str | None = None
        while True:
            page = self.sessions(cursor=cursor, **query)
            yield from page["sessions"]
            cursor = page["next"]
            if cursor is None:
                return

    def session(self, number: int) -> Answer:
        return self._call("GET", f"/sessions/{number}")

    def end(self, number: int) -> Answer:
        return self._call("DELETE", f"/sessions/{number}")

    def end_user(self, user: str, *, realm: str | None = None, revoke: bool = False) -> Answer:
        return self._call("DELETE", "/sessions", user=user, realm=realm, revoke=revoke)

    def drain(self) -> Answer:
        return self._call("POST", "/drain")

    def resume(self) -> Answer:
        return self._call("DELETE", "/drain")

    def reload(self) -> Answer:
        return self._call("POST", "/reload")

    def set_log_level(self, level: str, seconds: float | None) -> Answer:
        return self._call("PUT", "/log-level", {"level": level, "for": seconds})

    def _call(self, method: str, path: str, body: Answer | None = None, **query: Any) -> Answer:
        asked = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._http.request(method, path, params=asked, json=body)
            answer = response.json()
        except httpx.ConnectError as error:
            raise NoServer(f"no server answers at {self.name}: {_unconnected(error)}") from None
        except httpx.TimeoutException:
            raise NoServer(f"the server at {self.name} does not answer within {_TIMEOUT:.0f} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError):
            raise NoServer(f"what answers at {self.name} is no admin interface, or has just ended") from None
        if response.is_success and isinstance(answer, dict):
            return answer
        text = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        if response.status_code in (401, 403):
            raise NoServer(f"{self.name}: {text or 'refused'}")
        raise Refused(text or f"the server answers {response.status_code}", answer if isinstance(answer, dict) else {})


def find(places: Iterable[Path]) -> AdminClient:
    """The server at the first of these sockets where one listens; raises NoServer, which names them all."""
    tried: list[str] = []
    for place in places:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_TIMEOUT)
                probe.connect(str(place))
        except OSError as error:
            tried.append(f"{place} ({_reason(error)})")
        else:
            return AdminClient.on_socket(place)
    raise NoServer(f"no server answers; looked at {', '.join(tried) or 'no place'}")


def wait_ready(find: Callable[[], AdminClient], seconds: float) -> tuple[AdminClient, Answer]:
    """The server and its status once it is ready, or as it is when the time is over; raises NoServer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            client = find()
            status = client.status()
            if status["ready"] or time.monotonic() >= deadline:
                return client, status
            client.close()
        except NoServer:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_POLL)


_POLL = 0.1


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "this user may not use it"
    if isinstance(error, FileNotFoundError):
        return "not there"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens"
    return error.strerror or str(error)


def _unconnected(error: httpx.ConnectError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not trusted; name its issuer's file in the variable SSL_CERT_FILE"
    return str(error) or "it cannot be reached"
