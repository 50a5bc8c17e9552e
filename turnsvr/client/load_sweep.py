"""Which load to offer next: the search for the most that arrives with hardly any loss. Pure rules, no clock."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from turnsvr.client.load_values import LoadCounts

MOST_LOSS = 0.01
"""Part of the packets that may be lost at a load that is said to be carried."""
_CLOSE = 1.05
"""A carried and a refused load this near to each other end the search."""
_BUSY = 0.9
_MOST_DOUBTS = 2


@dataclass(frozen=True, slots=True)
class SweepStep:
    """One run: packets a second that were asked for, what came of it, and the server's CPU time of so many seconds.

    preempted: how often another program took the server's core.
    """

    asked: float
    counts: LoadCounts
    server_cpu: float = math.nan
    seconds: float = math.nan
    preempted: int = 0

    @property
    def carried(self) -> bool:
        """Whether hardly anything was lost of what was sent."""
        return self.counts.loss <= MOST_LOSS

    @property
    def kept_up(self) -> bool:
        """Whether besides no connection had to wait, so that a higher load may be carried as well."""
        return self.carried and self.counts.blocked <= MOST_LOSS * self.counts.sent

    @property
    def server_share(self) -> float:
        """Part of a core that the server had; NaN when unknown."""
        return self.server_cpu / self.seconds

    @property
    def doubtful(self) -> bool:
        """Whether the server may have lost what it lost because it had no core, not because it was too slow."""
        return self.server_share < _BUSY or self.preempted > 0

    @property
    def cost(self) -> float:
        """Server CPU seconds a delivered packet; NaN when unknown."""
        return self.server_cpu / self.counts.delivered if self.counts.delivered else math.nan


def search(
    measure: Callable[[float], SweepStep], start: float, *, factor: float, steps: int, most: float = math.inf
) -> list[SweepStep]:
    """At most that many runs, from `start` packets a second in steps of `factor`, then between the best and the worst.

    The steps grow while nothing is refused. A run that was disturbed, or that is doubtful, is done again, twice at
    most: a machine that is never quiet is measured as it is. Ends early where both meet, and where the generator can
    send no more. The steps come in the order they were run.
    """
    done: list[SweepStep] = []
    doubts = 0
    growth = factor
    low, high = 0.0, math.inf
    rate = min(start, most)
    while len(done) < steps:
        step = measure(rate)
        done.append(step)
        if doubts < _MOST_DOUBTS and (step.counts.disturbed or (step.doubtful and not step.kept_up)):
            doubts += 1
            continue
        doubts = 0
        if step.kept_up:
            low = max(low, rate)
            if step.counts.generator_limited or rate >= most:
                break
        else:
            high = min(high, rate)
            low = low if low < high else 0.0
        if low and high / low < _CLOSE:
            break
        rate = min(_next(low, high, growth), most)
        growth *= factor
    return done


def _next(low: float, high: float, factor: float) -> float:
    if high == math.inf:
        return low * factor
    if not low:
        return high / factor
    return math.sqrt(low * high)


def best(steps: Sequence[SweepStep]) -> SweepStep:
    """The step that delivered most per second of those that the server carried, else the one with the least loss."""
    carried = [step for step in steps if step.carried]
    if carried:
        return max(carried, key=lambda step: step.counts.rate)
    return min(steps, key=lambda step: (step.counts.loss, -step.counts.rate))


def highest(steps: Sequence[SweepStep]) -> float:
    """Most packets a second that were delivered at any load, loss or not."""
    return max(step.counts.rate for step in steps)
