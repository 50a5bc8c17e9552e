"""What is compared in the laboratory."""

from __future__ import annotations

from dataclasses import dataclass

from bench.cases import VIDEO, VOICE
from turnsvr.client.load_values import Direction


@dataclass(frozen=True, slots=True)
class LabCase:
    """Lone packets of so many bytes of payload, of so many flows, one way.

    by_sockets: sent and taken by the load generator's sockets, not by programs in the kernel.
    """

    direction: Direction
    flows: int
    size: int
    by_sockets: bool = False

    @property
    def name(self) -> str:
        kind = "sockets/" if self.by_sockets else ""
        return f"lab/{kind}{self.direction.value}/{self.flows}/{self.size}"


def cases() -> tuple[LabCase, ...]:
    return (
        *(LabCase(way, flows, size) for way in Direction for flows in (1, 64, 256) for size in (VOICE, VIDEO)),
        *(LabCase(way, 64, VIDEO, by_sockets=True) for way in Direction),
    )
