"""coturn's users, secrets and databases as `realm` and `credentials`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

from turnsvr.config import units
from turnsvr.config.placeholders import is_placeholder, is_template
from turnsvr.config.units import BadValue
from turnsvr.migrate import databases
from turnsvr.migrate.draft import AS_DEFAULT, NOT_UTF8, Draft, mistake_in
from turnsvr.migrate.source import Option

_DAY = 86_400
_NONCE_SECONDS = 600
"""What coturn takes for a stale-nonce without value."""
_DEFAULT_NONCE_SECONDS = 3_600

_PASSWORD_DIGITS = 32

_STORES: dict[str, Callable[[str], databases.Database] | None] = {
    "userdb": databases.sqlite,
    "db": databases.sqlite,
    "psql-userdb": databases.postgresql,
    "sql-userdb": databases.postgresql,
    "mysql-userdb": databases.mysql,
    "redis-userdb": databases.redis,
    "mongo-userdb": None,
}
"""What makes the URL of the database that each key names; None for those that turnsvr does not speak to."""


def translate_realm(draft: Draft) -> None:
    option = draft.last("realm")
    if option is None:
        return
    if is_template(option.text):
        draft.unsupported(option, "is a placeholder; write the realm under realm")
    else:
        draft.put("realm", option.text, option)


def translate_credentials(draft: Draft) -> None:
    secrets, users = _secrets(draft), _users(draft)
    store = _store(draft)
    rest = bool(secrets) or draft.is_on("use-auth-secret")
    named = rest or any(draft.every("user"))
    if draft.last("static-auth-secret") is None and not store and (rest or (draft.is_on("lt-cred-mech") and not named)):
        store = _default_store(draft)
    oauth = draft.is_on("oauth")
    if oauth and not store:
        store = _default_store(draft)
    _third_party(draft, oauth)
    _mechanisms(draft, bool(secrets), store)
    if not (secrets or users or store) and not draft.is_on("stun-only"):
        _new_secret(draft)
    if "realm" not in draft.made:
        _missing_realm(draft, keys=any(each.startswith("0x") for each in users), store=store)
    _nonce_lifetime(draft)
    _separator(draft)


def _secrets(draft: Draft) -> Sequence[str]:
    good: dict[str, Option] = {}
    for option in draft.every("static-auth-secret"):
        if not option.exact:
            draft.unsupported(option, NOT_UTF8)
        elif not option.value:
            draft.unsupported(option, "is empty; make a secret with: turnsvr secret")
        elif is_placeholder(option.value):
            draft.unsupported(option, "is a placeholder, which others know, too; make a secret with: turnsvr secret")
            draft.note(
                f"line {option.line}: the secret is a placeholder, with which anyone who knows it can relay: give the "
                "application another one"
            )
        elif option.value in good:
            draft.unneeded(option, f"line {good[option.value].line} says the same")
        else:
            good[option.value] = option
            _tell_hash(draft, option, "secret")
    if good:
        one = next(iter(good)) if len(good) == 1 else None
        draft.put("credentials.secret" if one else "credentials.secrets", one or list(good), *good.values())
    return list(good)


def _tell_hash(draft: Draft, option: Option, what: str) -> None:
    if option.commented:
        draft.note(
            f"line {option.line}: the {what} holds a blank and a #, and goes on to the end of the line as in coturn; "
            "correct it here and where it is used if that was meant as a comment"
        )


def _users(draft: Draft) -> Sequence[str]:
    """The passwords and keys of the users that are taken."""
    users: dict[str, str] = {}
    lines: dict[str, Option] = {}
    replaced: list[Option] = []
    if draft.every("static-auth-secret") or draft.is_on("use-auth-secret"):
        for option in draft.every("user"):
            draft.unneeded(option, "coturn looks at no user beside a shared secret; add it under credentials.users")
        return []
    for option in draft.every("user"):
        name, colon, password = option.value.partition(":")
        if not option.exact:
            draft.unsupported(option, NOT_UTF8)
        elif not colon:
            draft.unsupported(option, "has no colon between name and password; add the user under credentials.users")
        elif name and is_placeholder(password):
            users[name] = _other_password(draft, name)
            replaced.append(option)
        elif mistake := mistake_in("credentials.users", {name: password}):
            draft.unsupported(option, f"{mistake}; add the user under credentials.users")
        else:
            if name in lines:
                draft.unneeded(lines[name], f"line {option.line} names the user again, and the last one counts")
            users[name], lines[name] = password, option
            _tell_hash(draft, option, "password")
    if users:
        remark = "Where the file had a placeholder, the import made the password." if replaced else ""
        draft.put("credentials.users", users, *lines.values(), remark=remark)
    for option in replaced:
        draft.unsupported(
            option,
            "its password is a placeholder, which others know, too; another one was made: give it to the application",
        )
    return list(users.values())


def _other_password(draft: Draft, name: str) -> str:
    """One for each user."""
    return sha256(f"{draft.surroundings.new_secret}:{name}".encode()).hexdigest()[:_PASSWORD_DIGITS]


def _store(draft: Draft) -> bool:
    """Take over the database that counts, the last that is named; whether there is one."""
    *before, last = [None, *draft.every(*_STORES)]
    if last is None:
        return False
    for option in before:
        if option is not None:
            draft.unneeded(option, f"line {last.line} names a database, too, and the last one counts")
    read_place = _STORES[last.key]
    if read_place is None:
        draft.unsupported(
            last,
            "MongoDB is not among the stores; move its users into one with: turnsvr user add, as docs/users.md says",
        )
        return False
    if any(draft.every("secret-key-file")):
        draft.unsupported(last, "its password is encrypted; write credentials.store with the password itself")
        return False
    try:
        place = read_place(last.text)
    except BadValue as error:
        draft.unsupported(last, f"{error.problem}; {error.hint}")
        return False
    _tell_database(draft, last, place)
    return draft.put("credentials.store", place.url, last)


def _tell_database(draft: Draft, option: Option, place: databases.Database) -> None:
    """Note what a database's URL leaves out, and what it needs."""
    extra = place.url.partition(":")[0]
    if extra != "sqlite":
        draft.note(f"line {option.line}: the database needs packages of its own: pip install 'turnsvr[{extra}]'")
    if place.ignored:
        draft.note(
            f"line {option.line}: left out of the database's URL: {', '.join(place.ignored)}; how long it may take for "
            "an answer is timeout under credentials.store"
        )
    if place.url.startswith("sqlite:"):
        draft.note(
            f"line {option.line}: the service has to be able to read and write the database and its directory; leave "
            "credentials.store out when no user stands in it"
        )


def _default_store(draft: Draft) -> bool:
    place = databases.sqlite(draft.surroundings.database)
    lines = [option for key in ("use-auth-secret", "lt-cred-mech") for option in draft.every(key)[-1:]]
    draft.note(
        "users and secrets are in coturn's own database, since the file names none: correct its path in "
        "credentials.store"
    )
    return draft.put("credentials.store", place.url, *lines, remark="coturn's database where none is named.")


def _mechanisms(draft: Draft, secrets: bool, store: bool) -> None:
    """The switches, which turnsvr does without: what is there counts."""
    for key in ("lt-cred-mech", "use-auth-secret"):
        option = draft.last(key)
        if option is None:
            continue
        if not draft.is_on(key):
            draft.unneeded(option, "what stands under credentials counts")
        elif key == "use-auth-secret" and secrets:
            draft.taken("credentials.secret", option)
        elif key == "use-auth-secret" and store:
            draft.taken("credentials.store", option)
        else:
            draft.unneeded(option, "always so: no client relays without credentials")
    option = draft.last("no-auth")
    if option is not None and not draft.is_on("no-auth"):
        draft.unneeded(option, "no client relays without credentials")
    elif option is not None:
        draft.unsupported(
            option,
            "turnsvr never relays for strangers; make credentials with: turnsvr credentials, or let the section web "
            "hand them out",
        )


def _third_party(draft: Draft, oauth: bool) -> None:
    """Access tokens, whose keys are in the database."""
    lines = [option for key in ("oauth", "server-name") for option in draft.every(key)[-1:]]
    name = draft.last("server-name")
    if oauth:
        draft.put("credentials.oauth.server_name", name.text if name is not None else "", *lines)
        return
    for option in lines:
        draft.unneeded(option, "access tokens are not taken unless credentials.oauth is there")


def _new_secret(draft: Draft) -> None:
    draft.put(
        "credentials.secret",
        draft.surroundings.new_secret,
        remark="Made by the import, since the file has no user, no secret and no database that can be taken over.",
    )
    asked = draft.is_on("use-auth-secret") or draft.is_on("lt-cred-mech")
    if asked or any(draft.every("static-auth-secret", "user", *_STORES)):
        why = "none of the file's credentials can be taken over"
    else:
        why = "the file has no credentials, with which coturn relays for every client; turnsvr never does"
    draft.note(
        f"{why}. A shared secret was made: give it to the application, or make credentials from it with: turnsvr "
        "credentials"
    )


def _missing_realm(draft: Draft, *, keys: bool, store: bool) -> None:
    if draft.last("realm") is None and not draft.is_on("stun-only"):
        draft.note("the file names no realm: coturn takes the host's domain name, turnsvr the word turnsvr")
    if keys or store:
        draft.note("keys of users, 0x… and those in a database, are made for one realm: set realm to that one")


def _nonce_lifetime(draft: Draft) -> None:
    option = draft.last("stale-nonce")
    if option is None:
        return
    seconds = _NONCE_SECONDS if option.number is None else option.number
    if seconds == _DEFAULT_NONCE_SECONDS:
        draft.unneeded(option, AS_DEFAULT)
    elif 0 < seconds <= _DAY:
        draft.put("credentials.nonce_lifetime", units.format_duration(seconds), option)
    else:
        draft.put("credentials.nonce_lifetime", "1d", option, remark="A nonce lives a day at most.")


def _separator(draft: Draft) -> None:
    """Between the parts of time-limited names; of a longer text coturn takes the first character."""
    option = draft.last("rest-api-separator")
    if option is None:
        return
    separator = option.value[:1]
    if separator == ":":
        draft.unneeded(option, AS_DEFAULT)
    else:
        draft.put("credentials.separator", separator, option)
