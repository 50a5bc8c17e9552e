"""What the endpoints are asked for, as models: they refuse what means nothing, and are described as parameters.

An unknown parameter is refused: a mistyped condition must not end more sessions than were meant.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from turnsvr.admin.listing import Sort

MAX_PAGE = 1_000
_MAX_NAME = 1_024
_MAX_CURSOR = 16_384
_MAX_ADDRESS = 80

_Name = Annotated[str | None, Field(max_length=_MAX_NAME)]
_MAX_PATH = 4_096
_Where = Annotated[str | None, Field(max_length=_MAX_ADDRESS, description="IP address, with or without port.")]
_Peer = Annotated[
    str | None,
    Field(max_length=_MAX_ADDRESS, description="IP address of a permission, or with a port the peer of a channel."),
]


class Asked(BaseModel):
    """The parameters of a request; of those that have none as it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class SessionsWanted(Asked):
    user: Annotated[
        str | None,
        Field(max_length=_MAX_NAME, description="User name, or the name by which limits count: NAME of EXPIRY:NAME."),
    ] = None
    realm: _Name = None
    client: _Where = None
    relayed: _Where = None
    peer: _Peer = None
    search: Annotated[
        str | None,
        Field(max_length=_MAX_NAME, description="Text in a user name, the realm or an address of the session."),
    ] = None
    sort: Sort = Field(default="id", description="A minus means the other way round.")
    limit: int = Field(default=100, ge=1, le=MAX_PAGE)
    cursor: str | None = Field(default=None, max_length=_MAX_CURSOR, description="`next` of the page before.")
    detail: bool = Field(default=False, description="With permissions and channels.")


class UserToEnd(Asked):
    user: str = Field(min_length=1, max_length=_MAX_NAME)
    realm: _Name = None
    revoke: bool = Field(default=False, description="Refuse time-limited user names until they expire.")


class OneSession(Asked):
    id: int = Field(ge=1, le=2**63, description="The session's id.")


class UpgradeWanted(Asked):
    program: str | None = Field(
        default=None,
        min_length=1,
        max_length=_MAX_PATH,
        description="Path of the turnsvr to start, of another environment perhaps; without it the one that runs.",
    )
