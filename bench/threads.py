"""Two pump threads against one: turnsvr alone, at the same load for each thread."""

from __future__ import annotations

from collections.abc import Sequence

from bench import process
from bench.cases import Case
from bench.servers import PEER_HOST, Plan, Turnsvr
from bench.statistics import Reading
from turnsvr.client.load_flows import relay_flows
from turnsvr.client.load_sweep import SweepStep


def measure(server: Turnsvr, case: Case, seconds: float, rate: float, cores: Sequence[int]) -> Reading:
    """With one thread for each core: CPU time of a packet at this rate, the delivered rate, the threads' evenness."""
    threads = len(cores)
    traffic = case.traffic
    with (
        server.start(Plan(threads=threads, cores=cores)) as running,
        relay_flows(running.address, server.login, traffic, peer_host=PEER_HOST) as flows,
    ):
        threads_before = process.thread_seconds(running.pid)
        before = process.cpu_seconds(running.pid)
        counts = flows.run(traffic.load(rate, seconds))
        step = SweepStep(rate, counts, process.cpu_seconds(running.pid) - before, seconds)
        running.check()
        work = [
            spent - threads_before.get(thread, 0.0) for thread, spent in process.thread_seconds(running.pid).items()
        ]
    return {
        "delivered": counts.rate,
        "loss": counts.loss,
        "cpu": step.cost,
        "balance": balance(work, threads),
    }


def balance(work: Sequence[float], threads: int) -> float:
    """How much work gets done while the busiest thread does one thread's: 1 for one thread, at most `threads`."""
    busiest = sorted(work, reverse=True)[:threads]
    return sum(busiest) / busiest[0] if busiest and busiest[0] > 0 else float("nan")


def scaling(one: Reading, two: Reading) -> float:
    """How much more two threads carry than one, when each has a core of its own.

    Derived: what a packet costs with one thread by what it costs with two, times the evenness of the two. Cores that
    the load generator needs as well cannot show it directly.
    """
    return one["cpu"] / two["cpu"] * two["balance"]
