"""What an endpoint is: a method at a path, what it reads of a request, what it answers, and how it is described."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from turnsvr.web.dialects import Dialect
from turnsvr.web.refusal import Refused

EndpointFunction = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A text in the query or, where the path of the endpoint names it, in the path."""

    name: str
    meaning: str = ""
    longest: int | None = None
    """In characters; None for as many as HTTP lets through."""

    def of(self, request: Request) -> str | None:
        """What the request has for it, None when nothing; raises Refused."""
        found: str | None = request.path_params.get(self.name, request.query_params.get(self.name))
        if found is not None and self.longest is not None and len(found) > self.longest:
            raise self.refusal()
        return found

    def refusal(self) -> Refused:
        return Refused(400, f"not valid: {self.name}")


@dataclass(frozen=True, slots=True)
class WholeSeconds(Parameter):
    """A number of seconds, 1 or more."""

    def seconds(self, request: Request) -> float | None:
        """Raises Refused."""
        text = self.of(request)
        if text is None:
            return None
        try:
            number = float(text)
        except ValueError:
            raise self.refusal() from None
        if not number >= 1:  # nor NaN
            raise self.refusal()
        return number


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method at one path. Its description is the text under `run`."""

    method: str
    path: str
    run: EndpointFunction
    """May raise Refused."""
    summary: str = ""
    """Without one it is not described."""
    dialect: Dialect | None = None
    """How its caller is told of refusals."""
    tag: str = ""
    """What it is listed under, where that is not its dialect."""
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    """Name of the shape of a request's body in shapes.py; without a body none."""
    answer: str = ""
    """Name of the shape of an answer, as the one above."""
    status: int = 200
    head: bool = False
    """Whether HEAD is answered as well, which an endpoint that gives out credentials does not do."""

    def route(self) -> Route:
        async def serve(request: Request) -> Response:
            if self.dialect is not None:
                request.state.dialect = self.dialect
            return await self.run(request)

        route = Route(self.path, serve, methods=[self.method])
        route.methods = {self.method, "HEAD"} if self.head else {self.method}  # Route adds HEAD to every GET
        return route
