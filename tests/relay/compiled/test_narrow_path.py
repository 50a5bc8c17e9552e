"""GSO is given up where the kernel refuses it, and no packet is lost by that."""

from __future__ import annotations

import subprocess
import sys

import pytest


def _may_unshare() -> bool:
    try:
        return subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not _may_unshare(), reason="needs root and util-linux, for a network namespace")
def test_segments_that_do_not_fit_leave_one_by_one() -> None:
    program = [sys.executable, "-m", "tests.relay.compiled.small_mtu"]
    done = subprocess.run(["unshare", "-n", *program], capture_output=True, text=True, check=False, timeout=60)
    assert not done.returncode, done.stderr
