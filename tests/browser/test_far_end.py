"""A browser calls a Python program, which records the call; the recording's pictures are counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av

from tests.browser.rig import HERE, PAGE, Browser, Rig
from tests.browser.test_call import assert_media_flows, begin
from tests.conftest import wait_until

ROOM = "f4a1c0d29be83756f4a1c0d29be83756"
SECONDS = 6


def frames_in(file: Path) -> tuple[int, set[tuple[int, int]]]:
    """How many pictures, and of which sizes."""
    with av.open(str(file)) as container:
        frames = [(frame.width, frame.height) for frame in container.decode(video=0)]
    return len(frames), set(frames)


def test_a_browsers_call_is_recorded_by_aiortc(lab: Rig, here: Browser, tmp_path: Path) -> None:
    file, output = tmp_path / "call.mp4", tmp_path / "output"
    command = lab.there.command(sys.executable, str(HERE / "far_end.py"), PAGE, ROOM, str(file), str(SECONDS))
    with output.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as far_end:
        try:
            wait_until(lambda: "joined" in output.read_text(), "the far end to join")
            begin(here, f"{PAGE}#room={ROOM}")
            found = assert_media_flows(here)
            assert found["localType"] == "relay"
            assert far_end.wait(60) == 0, output.read_text()
        finally:
            far_end.kill()
    count, sizes = frames_in(file)
    assert count >= SECONDS * 5, (count, output.read_text())
    assert all(width >= 160 for width, _ in sizes)
