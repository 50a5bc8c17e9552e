"""The programs in the kernel; where it refuses them, or they were not built, these tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.relay.offload.bench import Bench
from turnsvr.relay.offload.programs import Absent, ProgramKind, Programs


@pytest.fixture(scope="session")
def programs() -> Iterator[Programs]:
    try:
        loaded = Programs({"flows": 64, "sessions": 16, "buckets": 16, "traffic": 16, "hops": 16})
    except Absent as error:
        pytest.skip(f"no programs: {error}")
    yield loaded
    loaded.close()


@pytest.fixture(params=["xdp", "tc"])
def bench(request: pytest.FixtureRequest, programs: Programs) -> Bench:
    kind: ProgramKind = request.param
    if kind not in programs.programs:
        pytest.skip("this kernel has no TCX (Linux 6.6)")
    return Bench(programs, kind)
