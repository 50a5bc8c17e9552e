"""Calls the admin interface of a server, over its Unix socket or over TCP with its token."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from turnsvr.admin import NoServer, Refused

_TIMEOUT = 10.0
"""Seconds within which a server answers anything."""
_PAGE = 1_000

Answer = dict[str, Any]
"""One of the objects that models.py describes."""


class AdminClient:
    """One server. Calls raise NoServer and Refused."""

    def __init__(self, http: httpx.Client, name: str, socket: Path | None = None) -> None:
        """name: where it is, for people; socket: the same when it is a path."""
        self.name = name
        self._http = http
        self._socket = socket

    @classmethod
    def on_socket(cls, path: Path) -> AdminClient:
        transport = httpx.HTTPTransport(uds=str(path))
        http = httpx.Client(transport=transport, base_url="http://localhost", trust_env=False, timeout=_TIMEOUT)
        return cls(http, str(path), path)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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
        if self._socket is not None and (reason := _unreachable(self._socket)):
            raise NoServer(f"no server answers at {self.name}: {reason}")
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
        if reason := _unreachable(place):
            tried.append(f"{place} ({reason})")
        else:
            return AdminClient.on_socket(place)
    raise NoServer(f"no server answers; looked at {', '.join(tried) or 'no place'}")


def _unreachable(place: Path) -> str:
    """Why nobody can be asked at this socket; empty when somebody listens."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_TIMEOUT)
            probe.connect(str(place))
    except PermissionError:
        return "this user may not use it"
    except FileNotFoundError:
        return "not there"
    except ConnectionRefusedError:
        return "nobody listens"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _unconnected(error: httpx.ConnectError) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate is not trusted; name its issuer's file in the variable SSL_CERT_FILE"
    return str(error) or "it cannot be reached"
