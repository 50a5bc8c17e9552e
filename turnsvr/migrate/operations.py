"""What of coturn's becomes `stun`, `stun_only`, `redirect`, `pump`, `web`, `status` and `log`."""

from __future__ import annotations

import ipaddress

from turnsvr.config.fields import ANY_OF_FAMILY
from turnsvr.config.ranges import EVERY_ADDRESS, ServerAddress, parse_host
from turnsvr.config.settings import LogSettings, StunSettings
from turnsvr.config.units import BadValue
from turnsvr.migrate import databases
from turnsvr.migrate.draft import AS_DEFAULT, Draft
from turnsvr.migrate.source import Option

_METRICS_PORT = 9_641
_METRICS_PATH = "/metrics"
_MAX_THREADS = 1_024
_NEARBY = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7"]
"""Who may read metrics: loopback and private networks, where Prometheus usually is."""

_LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "warn": "warning", "error": "error"}


def translate_stun_only(draft: Draft) -> None:
    _translate_switch(draft, "stun-only", "stun_only", value=True)


def translate_stun(draft: Draft) -> None:
    for key in ("no-software-attribute", "prod"):
        _translate_switch(draft, key, "stun.software", value=False)
    option = draft.last("software-attribute")
    if option is not None and draft.is_on("software-attribute"):
        draft.unneeded(option, AS_DEFAULT)
    elif option is not None and option.switch is False:
        draft.put("stun.software", not StunSettings().software, option)
    for key in ("stun-backward-compatibility", "rfc3489-compatibility"):
        _translate_switch(draft, key, "stun.rfc3489", value=True)
    _translate_switch(draft, "mobility", "stun.mobility", value=True)


def _translate_switch(draft: Draft, key: str, setting: str, *, value: bool) -> None:
    option = draft.last(key)
    if option is None:
        return
    if draft.is_on(key):
        made = draft.made.get(setting)
        draft.put(setting, value, *(made.options if made else ()), option)
    else:
        draft.unneeded(option, AS_DEFAULT)


def translate_redirect(draft: Draft) -> None:
    """One list serves the clients of every transport."""
    to: dict[str, Option] = {}
    for option in draft.every("alternate-server"):
        try:
            to.setdefault(str(ServerAddress.parse(option.text)), option)
        except BadValue as error:
            draft.unsupported(option, f"{error.problem}; name it under redirect.to")
    if to:
        draft.put("redirect.to", list(to), *draft.every("alternate-server"))
        draft.put("redirect.when", "always")
    for option in draft.every("tls-alternate-server", "udp-alternate-server", "tcp-alternate-server"):
        draft.unsupported(option, "redirect.to has one list for the clients of all transports; name the server there")


def translate_pump(draft: Draft) -> None:
    threads, cpus = draft.last("relay-threads"), draft.last("cpus")
    if threads is not None and cpus is not None:
        draft.unneeded(cpus, f"line {threads.line} names the threads")
    option = threads or cpus
    if option is not None and option.number is None:
        draft.unsupported(option, "is no number; pump.threads is one a core")
    elif option is not None and option.number is not None:
        draft.put("pump.threads", min(max(option.number, 1), _MAX_THREADS), option)
    gso = draft.last("udp-gso")
    if gso is not None and (draft.is_on("udp-gso") or gso.switch is None):
        draft.unneeded(gso, AS_DEFAULT)
    elif gso is not None:
        draft.put("pump.gso", False, gso)


def translate_web(draft: Draft) -> None:
    """An HTTP listener for metrics alone."""
    switches = ("prometheus", "prometheus-tls")
    on = [key for key in switches if draft.is_on(key)]
    details = ("prometheus-address", "prometheus-port", "prometheus-path", "prometheus-cert", "prometheus-key")
    for key in (*(each for each in switches if each not in on), *(() if on else details)):
        for option in draft.every(key):
            draft.unneeded(option, "metrics are off by default")
    if not on:
        return
    scheme = "https" if "prometheus-tls" in on else "http"
    own = _metrics_certificate(draft, scheme)
    if scheme == "https" and not own and "tls.key" not in draft.made:
        for option in draft.every("prometheus-tls"):
            draft.unsupported(option, "needs a certificate; metrics are served over http:// (web.listen)")
        scheme = "http"
    host, port = _metrics_host(draft), draft.port("prometheus-port", _METRICS_PORT)
    lines = [option for key in (*on, *details[:2]) for option in draft.every(key)[-1:]]
    draft.put("web.listen", f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}", *lines)
    draft.put("web.page", False, remark="Off, since this listener is for metrics.")
    draft.put("web.signalling", None, remark="Off, since this listener is for metrics.")
    if host == EVERY_ADDRESS or not ipaddress.ip_address(host).is_loopback:
        draft.put("web.metrics", _NEARBY, remark="In coturn every host may.")
        draft.note(
            "metrics are for this host and private networks; add the address of a Prometheus elsewhere to web.metrics"
        )
    _metrics_path(draft)
    draft.note("metrics have names of their own: dashboards for coturn's need others, such as conf/grafana.json")


def _metrics_certificate(draft: Draft, scheme: str) -> bool:
    """Whether metrics have a certificate of their own."""
    certificate, key = draft.last("prometheus-cert"), draft.last("prometheus-key")
    given = [option for option in (certificate, key) if option is not None]
    if scheme == "https" and certificate is not None and key is not None:
        return draft.put("web.tls.certificate", certificate.text, certificate) and draft.put(
            "web.tls.key", key.text, key
        )
    for option in given:
        draft.unneeded(option, "both a certificate and its key count, with prometheus-tls")
    return False


def _metrics_host(draft: Draft) -> str:
    option = draft.last("prometheus-address")
    if option is None:
        return EVERY_ADDRESS
    try:
        host = parse_host(option.text)
    except BadValue as error:
        draft.unsupported(option, f"{error.problem}; write web.listen")
        return "127.0.0.1"
    return EVERY_ADDRESS if host in ANY_OF_FAMILY.values() else host


def _metrics_path(draft: Draft) -> None:
    option = draft.last("prometheus-path")
    if option is not None and option.text == _METRICS_PATH:
        draft.unneeded(option, AS_DEFAULT)
    elif option is not None:
        draft.unsupported(option, f"metrics are at {_METRICS_PATH}; set metrics_path of the job in Prometheus")


def translate_status(draft: Draft) -> None:
    option = draft.last("redis-statsdb")
    if option is None:
        return
    try:
        place = databases.redis(option.text)
    except BadValue as error:
        draft.unsupported(option, f"{error.problem}; write status.redis as redis://host/0")
        return
    draft.put("status.redis", place.url, option)


def translate_log(draft: Draft) -> None:
    everything, level = draft.last("Verbose"), draft.last("log-min-level")
    if everything is not None and draft.is_on("Verbose"):
        draft.put("log.level", "debug", everything)
        if level is not None:
            draft.unneeded(level, f"line {everything.line} asks for everything")
    else:
        if everything is not None:
            draft.unneeded(everything, AS_DEFAULT)
        if level is not None:
            _translate_level(draft, level)
    _translate_log_file(draft)


def _translate_level(draft: Draft, option: Option) -> None:
    level = _LEVELS.get(option.text.lower())
    if level is None:
        draft.unsupported(option, "log.level is debug, info, warning or error")
    elif level == LogSettings().level:
        draft.unneeded(option, AS_DEFAULT)
    else:
        draft.put("log.level", level, option)


def _translate_log_file(draft: Draft) -> None:
    option = draft.last("log-file")
    if option is None:
        return
    if option.text in ("", "-", "stdout", "syslog", "/dev/stdout", "/dev/stderr", "/proc/1/fd/1", "/proc/self/fd/1"):
        draft.unneeded(option, "log lines go to standard error, which systemd keeps: journalctl -u turnsvr")
    elif draft.put("log.file", option.text, option):
        place = option.text.rpartition("/")[0] or "its directory"
        draft.note(
            f"line {option.line}: the service may write below /var/log/turnsvr alone: name a file there in log.file, "
            f"or let it write to {place} (systemctl edit turnsvr: [Service], ReadWritePaths={place}); conf/logrotate "
            "rotates it"
        )
