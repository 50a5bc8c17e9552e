"""What one method does at one path, as a value: endpoints are served from it, and described by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from turnsvr.admin.asked import Asked

HttpMethod = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True, slots=True)
class Operation:
    """Its description is the text under `run`."""

    method: HttpMethod
    path: str
    summary: str
    run: Callable[[Any], Awaitable[BaseModel]]
    """Takes what `asked` makes of the request; may raise Refused, BadRequest and Mistaken."""
    answer: type[BaseModel]
    asked: type[BaseModel] = Asked
    """Model of the parameters in path and query or, where the method is PUT, of the body."""
    refusals: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """Besides those of every operation."""
    sparse: bool = False
    """Whether the answer leaves out what was not set."""
