"""What a figure depends on and a reader must know: versions, what runs compiled, the machine."""

from __future__ import annotations

import platform
from pathlib import Path

from turnsvr import __version__, compiled_modules, relay
from turnsvr.client.load_flows import CORE


def describe() -> dict[str, str]:
    return {
        "turnsvr": __version__,
        "rules": compiled_modules.describe(),
        "compiled pump": relay.describe(),
        "kernel": platform.release(),
        "processor": _processor(),
        "python": platform.python_version(),
        "generator": CORE,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
