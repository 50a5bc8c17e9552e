"""The settings of who may relay: users and secrets in the file, a database, a web hook, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, model_validator

from turnsvr.config import fields
from turnsvr.config.sealingkeys import read_key
from turnsvr.config.units import BadValue

_HOUR = 3_600.0
_DAY = 86_400.0


class KnownUsers(fields.Section):
    """Users and secrets that stand in the file."""

    users: dict[fields.Username, fields.Password] = Field(default_factory=dict)
    """Static users: name and password, or 0x and the hex MD5 or SHA-256 of user:realm:password."""
    secrets: fields.Secrets = Field(default=(), validation_alias=AliasChoices("secrets", "secret"))
    """Shared secrets of time-limited credentials, tried in order; `secret` names a single one."""

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, value: object) -> object:
        if isinstance(value, Mapping) and "secret" in value and "secrets" in value:
            raise BadValue("names both secret and secrets", "list them all under secrets")
        return value


class StoreSettings(fields.Section):
    """A database of users, secrets, realms and peer ranges, in coturn's tables or under coturn's keys."""

    url: fields.StoreLocation
    """sqlite:/path, postgresql://user:password@host/database, mysql://… or redis://…; a URL alone may stand for all."""
    timeout: Annotated[fields.Seconds, Field(ge=0.1, le=60)] = 3.0
    """How long the database may take for one answer, 100 ms to 1 minute; then requests get error 500."""
    cache: Annotated[fields.Seconds, Field(ge=0, le=_HOUR)] = 30.0
    """How long a user's key is remembered, up to 1 hour; 0 to ask every time."""
    poll: Annotated[fields.Seconds, Field(ge=1, le=_HOUR)] = 10.0
    """How often secrets, limits and peer ranges are read again, 1 s to 1 hour; Redis tells of changes itself."""

    @model_validator(mode="before")
    @classmethod
    def _from_url(cls, value: object) -> object:
        return {"url": value} if isinstance(value, (str, SecretStr)) else value


class HookSettings(fields.Section):
    """A web service that is asked for each user name."""

    url: fields.HttpUrl
    """http:// or https:// address that takes POST requests."""
    secret: fields.Secret
    """Signs the requests, so that the service knows that this server asks."""
    timeout: Annotated[fields.Seconds, Field(ge=0.1, le=30)] = 2.0
    """How long the service may take, 100 ms to 30 s; then requests get error 500."""
    ca: fields.FilePath | None = None
    """PEM file with the authorities that vouch for the service; the system's own when absent."""


class TokenSettings(fields.Section):
    """JSON Web Tokens as credentials: the token is the user name."""

    keys: fields.FilePath | None = None
    """File with the keys that sign tokens: a PEM public key, a JWKS document, or the text of a shared key."""
    url: fields.HttpUrl | None = None
    """Address of a JWKS document, in place of keys."""
    algorithms: Annotated[tuple[str, ...], Field(min_length=1)] = ("ES256", "EdDSA", "RS256")
    """Signature algorithms that are accepted; HS256 for a shared key."""
    issuer: str | None = Field(default=None, min_length=1)
    """What the claim iss must say; not looked at when absent."""
    audience: str | None = Field(default=None, min_length=1)
    """What the claim aud must name; tokens with an audience are refused when absent."""
    user_claim: str = Field(default="sub", min_length=1)
    """Claim with the user that limits count by."""
    quota_claim: str = Field(default="turn_allocations", min_length=1)
    """Claim with how many allocations the user may hold, in place of the limit."""
    transports: Literal["tls", "any"] = "tls"
    """Where a token with a public key's signature may be used: who reads such a user name can relay with it."""

    @model_validator(mode="after")
    def _one_place(self) -> TokenSettings:
        if (self.keys is None) == (self.url is None):
            raise BadValue("has both keys and url, or neither", "write one of them")
        return self


class OAuthKeySettings(fields.Section):
    """A key that an authorization server seals access tokens with; the key alone may stand for all."""

    key: fields.Secret
    """32 bytes in base64, 16 for A128GCM."""
    algorithm: Literal["A256GCM", "A128GCM"] = "A256GCM"
    """How tokens are sealed with it."""
    not_before: fields.Time = 0.0
    """When tokens of it are taken from: 2026-01-31, 2026-01-31T12:00:00Z, or seconds since 1970."""
    lifetime: fields.Seconds = 0.0
    """For how long from then; 0 for ever."""
    realm: fields.Realm | None = None
    """Realm whose rules hold for the tokens' bearers; the one that they name when absent."""

    @model_validator(mode="before")
    @classmethod
    def _from_key(cls, value: object) -> object:
        return {"key": value} if isinstance(value, (str, SecretStr)) else value

    @model_validator(mode="after")
    def _is_key(self) -> OAuthKeySettings:
        read_key(self.key.get_secret_value(), self.algorithm)
        return self


class OAuthSettings(fields.Section):
    """Third-party authorization (RFC 7635): tokens that an authorization server has sealed, as coturn's `oauth`."""

    server_name: fields.ServerName = ""
    """Name of this server that tokens are made for; that of the realm when empty."""
    keys: dict[fields.KeyId, OAuthKeySettings] = Field(default_factory=dict)
    """Keys by their name (kid); those in a store's table oauth_key count as well."""


class CredentialSettings(KnownUsers):
    """Who may relay."""

    store: StoreSettings | None = None
    """Database of users and secrets; none when absent."""
    hook: HookSettings | None = None
    """Web service that is asked for users that no other source knows; none when absent."""
    tokens: TokenSettings | None = None
    """JSON Web Tokens as credentials; not accepted when absent."""
    oauth: OAuthSettings | None = None
    """Access tokens of RFC 7635; not accepted when absent."""
    separator: fields.Separator = ":"
    """What stands between the expiry and the user in time-limited user names: one character, as in EXPIRY:user."""
    nonce_lifetime: Annotated[fields.Seconds, Field(ge=1, le=_DAY)] = _HOUR
    """How long a nonce serves before clients are asked to take a new one, 1 s to 1 day."""

    @property
    def any_user(self) -> bool:
        """Whether any user could relay."""
        return bool(self.users or self.secrets or self.beyond_file)

    @property
    def beyond_file(self) -> bool:
        """Whether there is another place that users of every realm come from."""
        return bool(self.store or self.hook or self.tokens or self.oauth)

    @model_validator(mode="after")
    def _oauth_has_keys(self) -> CredentialSettings:
        if self.oauth is not None and not self.oauth.keys and self.store is None:
            raise BadValue("has oauth without keys", "write oauth.keys, or a store with the table oauth_key")
        return self
