"""What a call carries in these tests, and how it is known again at the far end: tones, and pictures of two halves."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Sequence
from fractions import Fraction

from aiortc import MediaStreamTrack
from av import AudioFrame, VideoFrame
from av.frame import Frame

RATE = 48_000
"""Samples a second."""
SAMPLES = 960
"""Those of a frame: 20 ms."""
LOUDNESS = 6_000
"""Amplitude of a tone, of 32,767."""
WIDTH, HEIGHT = 320, 240
LEFT, RIGHT = 200, 60
"""Brightness of the halves of a picture, of 255."""
PICTURES_A_SECOND = 15


class _Paced(MediaStreamTrack):
    """A track whose frames come when they are due."""

    def __init__(self) -> None:
        super().__init__()
        self._begun: float | None = None
        self._count = 0

    async def _next(self, length: Fraction) -> int:
        """Waits until a frame is due, each of which lasts length seconds; which it is."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = now
        await asyncio.sleep(max(0.0, self._begun + float(self._count * length) - now))
        self._count += 1
        return self._count - 1


class Tone(_Paced):
    """A sine of so many Hz, which divides 50 frames a second without rest."""

    kind = "audio"

    def __init__(self, hertz: int) -> None:
        super().__init__()
        assert hertz * SAMPLES % RATE == 0, "each frame is alike"
        wave = (LOUDNESS * math.sin(2 * math.pi * hertz * n / RATE) for n in range(SAMPLES))
        self._samples = array("h", map(round, wave)).tobytes()

    async def recv(self) -> Frame:
        number = await self._next(Fraction(SAMPLES, RATE))
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(self._samples)
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), number * SAMPLES
        return frame


class Picture(_Paced):
    """A bright half and a dark one, without colour."""

    kind = "video"

    async def recv(self) -> Frame:
        number = await self._next(Fraction(1, PICTURES_A_SECOND))
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        bright, *colours = frame.planes
        line = bytes([LEFT]) * (bright.line_size // 2) + bytes([RIGHT]) * (bright.line_size - bright.line_size // 2)
        bright.update(line * bright.height)
        for plane in colours:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.time_base, frame.pts = Fraction(1, 90_000), number * 90_000 // PICTURES_A_SECOND
        return frame


def is_picture(frame: VideoFrame) -> bool:
    """Whether it is the picture that was sent, as a codec leaves it."""
    bright = frame.reformat(format="yuv420p").planes[0]
    middle = bytes(bright)[bright.line_size * (frame.height // 2) :][: frame.width]
    left, right = middle[frame.width // 4], middle[frame.width * 3 // 4]
    return abs(left - LEFT) < 40 and abs(right - RIGHT) < 40


async def hear(track: MediaStreamTrack, *, skip: int = 25, frames: int = 50) -> array[int]:
    """Samples of one channel, after so many frames that belong to the beginning."""
    heard: array[int] = array("h")
    for number in range(skip + frames):
        frame = await track.recv()
        assert isinstance(frame, AudioFrame)
        if number >= skip:
            heard.extend(samples_of(frame))
    return heard


def samples_of(frame: AudioFrame) -> array[int]:
    """The first channel of a packed frame of 16 bits."""
    channels = len(frame.layout.channels)
    return array("h", bytes(frame.planes[0])[: frame.samples * channels * 2])[::channels]


async def see(track: MediaStreamTrack, pictures: int) -> None:
    """Returns when so many of the pictures have come that were sent."""
    while pictures:
        frame = await track.recv()
        assert isinstance(frame, VideoFrame)
        pictures -= is_picture(frame)


def strength(samples: Sequence[int], hertz: int) -> float:
    """Amplitude of a frequency: Goertzel's algorithm."""
    turn = 2 * math.cos(2 * math.pi * hertz / RATE)
    before = last = 0.0
    for sample in samples:
        before, last = last, sample + turn * last - before
    return 2 * math.sqrt(before**2 + last**2 - turn * before * last) / len(samples)


def tones(samples: Sequence[int], asked: Sequence[int]) -> set[int]:
    """Which of the frequencies are in it: at least a third as loud as they were sent."""
    return {hertz for hertz in asked if strength(samples, hertz) > LOUDNESS / 3}
