"""coturn's quotas, rates and lifetimes as `limits`."""

from __future__ import annotations

from turnsvr.config import units
from turnsvr.config.settings import LimitSettings
from turnsvr.migrate.draft import AS_DEFAULT, Draft
from turnsvr.migrate.source import Option

_DEFAULTS = LimitSettings()
_MOST = 1_000_000
_DAY = 86_400
_LEAST_BANDWIDTH = 1_000

_NO_NUMBER = "is no number; the default of limits.{} is taken"


def translate_limits(draft: Draft) -> None:
    total = _count(draft, "total-quota")
    if total is not None:
        _translate_total(draft, *total)
    _bound_by_ports(draft)
    user = _count(draft, "user-quota")
    if user is not None:
        _translate_user(draft, *user)
    if not draft.is_on("stun-only"):
        _tell_defaults(draft)
    _translate_bandwidth(draft)
    _translate_seconds(draft, "max-allocate-lifetime", "lifetime", _DEFAULTS.lifetime, 60, 30 * _DAY)
    _translate_seconds(draft, "max-allocate-timeout", "idle_timeout", _DEFAULTS.idle_timeout, 1, _DAY)
    _translate_answers(draft)


def _count(draft: Draft, key: str) -> tuple[Option, int] | None:
    """A key's line and number; None when there is none or it means nothing."""
    option = draft.last(key)
    if option is None:
        return None
    if option.number is None or option.number < 0:
        draft.unsupported(option, "is no number; the default is taken, see limits")
        return None
    return option, option.number


def _translate_total(draft: Draft, option: Option, total: int) -> None:
    if total == _DEFAULTS.allocations:
        draft.unneeded(option, AS_DEFAULT)
    elif total == 0:
        draft.unneeded(option, f"0 is no limit in coturn; here the server holds {_DEFAULTS.allocations} allocations")
    else:
        draft.put("limits.allocations", min(total, _MOST), option)


def _translate_user(draft: Draft, option: Option, user: int) -> None:
    if user == _DEFAULTS.allocations_per_user:
        draft.unneeded(option, AS_DEFAULT)
    elif user == 0:
        most = _most(draft)
        draft.put("limits.allocations_per_user", most, option, remark="As many as the server holds, 0 in coturn.")
    else:
        draft.put("limits.allocations_per_user", min(user, _MOST), option)


def _most(draft: Draft) -> int:
    """Allocations that the server will hold."""
    made = draft.made.get("limits.allocations")
    return made.value if made is not None and isinstance(made.value, int) else _DEFAULTS.allocations


def _bound_by_ports(draft: Draft) -> None:
    """A small range of relay ports bounds the allocations."""
    ports = draft.made.get("relay.ports")
    low, dash, high = str(ports.value).partition("-") if ports is not None else ("", "", "")
    room = int(high) - int(low) + 1 if dash else _MOST
    if room < _most(draft):
        draft.put("limits.allocations", room, remark="As many as relay.ports has room for.")
        draft.note(f"relay.ports has room for {room} allocations for each relay address, and so has limits.allocations")


def _tell_defaults(draft: Draft) -> None:
    if draft.last("user-quota") is None:
        draft.put(
            "limits.allocations_per_user",
            _most(draft),
            remark="As many as the server holds: coturn has no limit where none is written.",
        )
        draft.note(
            "a user holds as many allocations as the server, as in coturn without user-quota; "
            f"limits.allocations_per_user is {_DEFAULTS.allocations_per_user} by default, which keeps one user from "
            "taking them all"
        )
    if draft.last("total-quota") is None:
        draft.note(f"the server holds {_most(draft)} allocations at most, where coturn had no limit")


def _translate_bandwidth(draft: Draft) -> None:
    counted = _count(draft, "max-bps")
    if counted is None:
        return
    option, rate = counted
    if rate == 0:
        draft.unneeded(option, "no limit is the default")
    else:
        text = units.format_bandwidth(max(rate, _LEAST_BANDWIDTH))
        draft.put("limits.bandwidth_per_allocation", text, option)


def _translate_seconds(draft: Draft, key: str, name: str, default: float, least: int, most: int) -> None:
    option = draft.last(key)
    if option is None:
        return
    if option.number is None:
        draft.unsupported(option, _NO_NUMBER.format(name))
        return
    seconds = min(max(option.number, least), most)
    if seconds == default:
        draft.unneeded(option, AS_DEFAULT)
        return
    remark = "" if seconds == option.number else f"{option.number} seconds lies outside of what turnsvr grants."
    draft.put(f"limits.{name}", units.format_duration(seconds), option, remark=remark)


def _translate_answers(draft: Draft) -> None:
    """coturn counts 401 answers alone, turnsvr Binding answers as well."""
    switch, rate = draft.last("unauthorized-ratelimit"), draft.last("unauthorized-ratelimit-rps")
    limited = draft.is_on("unauthorized-ratelimit")
    if switch is not None:
        why = (
            f"always so: {units.format_rate(_DEFAULTS.answers_per_address)} to one address (limits.answers_per_address)"
        )
        draft.unneeded(switch, why)
    if rate is None:
        return
    if not limited:
        draft.unneeded(rate, "has no effect without unauthorized-ratelimit")
    elif rate.number is None or rate.number <= 0:
        draft.unsupported(rate, _NO_NUMBER.format("answers_per_address"))
    else:
        draft.put(
            "limits.answers_per_address", units.format_rate(rate.number), rate, remark="Binding answers count as well."
        )
