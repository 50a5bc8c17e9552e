"""A traced message in a line or two for a terminal. Pure."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from turnsvr.cli.text import printable

_OPEN = 256
"""Requests whose answers are awaited; the oldest are forgotten."""
_UNINTERESTING = {"FINGERPRINT", "MESSAGE-INTEGRITY", "MESSAGE-INTEGRITY-SHA256", "NONCE", "PASSWORD-ALGORITHMS"}
"""Of an answer; of a request they say whether the client does as it should."""
_PROVEN = {True: "credentials right", False: "credentials not taken"}


class Lines:
    """Makes lines of events, in the order in which they came."""

    def __init__(self) -> None:
        self._asked: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._where = ""

    def of(self, event: dict[str, Any]) -> list[str]:
        """A head, which begins with the time of day, and what is said, indented."""
        if event["what"] == "packet":
            return [f"{_clock(event['at'])}  {_arrow(event)} data, {event['size']} bytes  {printable(event['peer'])}"]
        head = f"{_clock(event['at'])}  {_arrow(event)} {event['method']} {event['kind']}".rstrip()
        attributes = {each["name"]: each["value"] for each in event["attributes"]}
        if error := attributes.get("ERROR-CODE"):
            head += f" {printable(error)}"
        notes = [*self._took(event), *([] if event["proven"] is None else [_PROVEN[event["proven"]]])]
        if notes:
            head += f"  ({', '.join(notes)})"
        if event["problem"]:
            head += f"  malformed: {printable(event['problem'])}"
        said = [
            f"{printable(each['name'])} {printable(each['value'])}"
            for each in event["attributes"]
            if each["name"] != "ERROR-CODE" and (event["from_client"] or each["name"] not in _UNINTERESTING)
        ]
        return [*self._whereabouts(event), head, *([f"{'':14}  {'; '.join(said)}"] if said else [])]

    def _whereabouts(self, event: dict[str, Any]) -> list[str]:
        """A line for client, server, transport and session, where these differ from those of the event before."""
        session = "no session yet" if event["session"] is None else f"session {event['session']}"
        where = f"{event['transport']} {printable(event['client'])} to {printable(event['server'])}, {session}"
        if where == self._where:
            return []
        self._where = where
        return [f"-- {where}"]

    def _took(self, event: dict[str, Any]) -> list[str]:
        key = event["client"], event["transaction"]
        if event["kind"] == "request":
            self._asked.setdefault(key, event["at"])
            if len(self._asked) > _OPEN:
                self._asked.popitem(last=False)
            return []
        asked = self._asked.pop(key, None)
        return [] if asked is None else [f"after {max(0.0, event['at'] - asked) * 1000:.1f} ms"]


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03}"


def _arrow(event: dict[str, Any]) -> str:
    return "→" if event["from_client"] else "←"
