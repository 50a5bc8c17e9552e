"""Calls the admin interface of a server, over its Unix socket or over TCP with its token."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from turnsvr.admin import NoServer, RefusedByServer

_TIMEOUT = 10.0
"""Seconds within which a server answers anything."""
_UPGRADING = 180.0
"""Seconds within which a new program has started and gone on, or has not."""
_PAGE = 1_000
_MAX_ANSWER = 64 * 1_048_576
"""Bytes; a page of sessions with all that is known of them has some 10 MB."""

JsonObject = dict[str, Any]
"""One of the objects that models.py describes."""

_Open = Callable[[], http.client.HTTPConnection]


class AdminClient:
    """One server. Calls raise NoServer and RefusedByServer; each has a connection of its own, so none can be stale."""

    def __init__(
        self, open_connection: _Open, name: str, path: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """name: where it is, for people; path: what stands before those of the endpoints."""
        self.name = name
        self._open = open_connection
        self._path = path
        self._headers = headers or {}

    @classmethod
    def on_socket(cls, path: Path) -> AdminClient:
        return cls(lambda: _UnixConnection(path), str(path))

    @classmethod
    def at_url(cls, url: str, token: str) -> AdminClient:
        """Certificates are judged by the system's authorities, or those of the variable SSL_CERT_FILE.

        Raises NoServer where the URL or the token cannot be one.
        """
        if not token.isprintable():
            raise NoServer("the token is more than one line of text")
        headers = {"Authorization": f"Bearer {token.encode().decode('latin-1')}"}
        return cls(_opener(url), url, urlsplit(url).path.rstrip("/"), headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between calls."""

    def status(self) -> JsonObject:
        return self._call("GET", "/status")

    def sessions(self, *, limit: int = _PAGE, **query: Any) -> JsonObject:
        """One page; query as GET /sessions has it, what is None left out."""
        return self._call("GET", "/sessions", limit=limit, **query)

    def every_session(self, **query: Any) -> Iterator[JsonObject]:
        """All pages, one session after the other."""
        cursor: str | None = None
        while True:
            page = self.sessions(cursor=cursor, **query)
            yield from page["sessions"]
            cursor = page["next"]
            if cursor is None:
                return

    def session(self, number: int) -> JsonObject:
        return self._call("GET", f"/sessions/{number}")

    def end(self, number: int) -> JsonObject:
        return self._call("DELETE", f"/sessions/{number}")

    def end_user(self, user: str, *, realm: str | None = None, revoke: bool = False) -> JsonObject:
        return self._call("DELETE", "/sessions", user=user, realm=realm, revoke=revoke)

    def begin_trace(self, **wanted: Any) -> int:
        """Begin a trace, with the parameters of POST /traces that are not None; returns its number."""
        return int(self._call("POST", "/traces", **wanted)["id"])

    def read_trace(self, number: int, **query: Any) -> JsonObject:
        return self._call("GET", f"/traces/{number}", **query)

    def end_trace(self, number: int) -> JsonObject:
        return self._call("DELETE", f"/traces/{number}")

    def drain(self) -> JsonObject:
        return self._call("POST", "/drain")

    def resume(self) -> JsonObject:
        return self._call("DELETE", "/drain")

    def reload(self) -> JsonObject:
        return self._call("POST", "/reload", limit_seconds=_UPGRADING)

    def upgrade(self, program: str | None) -> JsonObject:
        """Over the Unix socket alone."""
        return self._call("POST", "/upgrade", program=program, limit_seconds=_UPGRADING)

    def set_log_level(self, level: str, seconds: float | None) -> JsonObject:
        return self._call("PUT", "/log-level", {"level": level, "for": seconds})

    def _call(
        self, method: str, path: str, body: JsonObject | None = None, *, limit_seconds: float = _TIMEOUT, **query: Any
    ) -> JsonObject:
        asked = {name: _text(value) for name, value in query.items() if value is not None}
        target = f"{self._path}{path}?{urlencode(asked)}".rstrip("?")
        status, answer = self._exchange(method, target, body, limit_seconds)
        if status < 300 and isinstance(answer, dict):
            return answer
        text = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        if status in (401, 403):
            raise NoServer(f"{self.name}: {text or 'refused'}")
        raise RefusedByServer(text or f"the server answers {status}", answer if isinstance(answer, dict) else {})

    def _exchange(self, method: str, target: str, body: JsonObject | None, seconds: float) -> tuple[int, Any]:
        """Status and answer, which is JSON; raises NoServer."""
        headers = {**self._headers, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        with closing(self._open()) as connection:
            self._connect(connection)
            connection.sock.settimeout(seconds)
            try:
                connection.request(method, target, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                content = response.read(_MAX_ANSWER + 1)
                if len(content) > _MAX_ANSWER:
                    raise ValueError
                return response.status, json.loads(content)
            except TimeoutError:
                raise NoServer(f"the server at {self.name} does not answer within {seconds:.0f} s") from None
            except (OSError, http.client.HTTPException, ValueError, RecursionError):
                raise NoServer(f"what answers at {self.name} is no admin interface, or has just ended") from None

    def _connect(self, connection: http.client.HTTPConnection) -> None:
        """Raises NoServer."""
        try:
            connection.connect()
        except TimeoutError:
            raise NoServer(f"the server at {self.name} does not answer within {_TIMEOUT:.0f} s") from None
        except (OSError, ValueError) as error:
            raise NoServer(f"no server answers at {self.name}: {_unconnected(error)}") from None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(str(self._socket_path))


def _opener(url: str) -> _Open:
    """What connects to the server of a URL; raises NoServer where it is no URL of HTTP."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in ("http", "https") or parts.query or not url.isprintable() or " " in url:
        raise NoServer(f"{url!a} is no address of an admin interface; write it as https://turn.example.org:5766")
    if parts.scheme == "http":
        return lambda: http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    context = ssl.create_default_context()
    return lambda: http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def find(places: Iterable[Path]) -> AdminClient:
    """The server at the first of these sockets where one listens; raises NoServer, which names them all."""
    tried: list[str] = []
    for place in places:
        if reason := _unreachable(place):
            tried.append(f"{place} ({reason})")
        else:
            return AdminClient.on_socket(place)
    raise NoServer(f"no server answers; looked at {', '.join(tried) or 'no place'}")


def _unreachable(place: Path) -> str:
    """Why no server can be reached at this socket; empty when one listens."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_TIMEOUT)
            probe.connect(str(place))
    except OSError as error:
        return _unconnected(error)
    return ""


def _unconnected(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return "its certificate is not trusted; name its issuer's file in the variable SSL_CERT_FILE"
        case PermissionError():
            return "this user may not use it"
        case FileNotFoundError():
            return "not there"
        case ConnectionRefusedError():
            return "no server listens"
        case OSError(strerror=str(text)):
            return text
    return str(error) or "it cannot be reached"
