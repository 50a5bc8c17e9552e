"""What goes to a multicast group does not come back to this host, whose services would hear it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from turnsvr.relay import PumpKind


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"),
    reason="a network namespace needs root, unshare and ip",
)
def test_no_service_of_this_host_hears_a_group(pump_kind: PumpKind) -> None:
    command = ["unshare", "--net", sys.executable, "-m", "tests.relay.multicast", pump_kind]
    run = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
