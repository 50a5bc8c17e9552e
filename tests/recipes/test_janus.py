"""docs/recipes/janus.md: Janus and its callers through the relay alone; media counted at the far end, and recorded."""

from __future__ import annotations

import asyncio
import subprocess
from array import array
from contextlib import suppress
from pathlib import Path

import av
import pytest

from tests.conftest import PATIENCE, need
from tests.recipes.janus import ROOM, answered, attached, offered, relayed_connection
from tests.recipes.media import PICTURES_A_SECOND, RATE, SAMPLES, Tone, hear, is_picture, see, tones
from tests.recipes.place import A_TRY, OWN_RELAY, TRIES, URL, Publisher, place
from turnsvr.net.tls import TlsFiles

TONES = (400, 700, 1100)
SECONDS = 2
WAVE_HEADER = 44
"""Bytes before the samples."""

TRANSPORT = {"udp": "udp", "tcp": "tcp", "tls": "tcp", "rest": "udp"}
"""Over which Janus comes to the relay: libnice 0.1 speaks TCP without TLS, whatever it is told of TLS."""


async def watch(api: str, feed: int, patience: float) -> set[int]:
    """A subscriber, who sees pictures for some seconds; the tones that it heard. Raises TimeoutError."""
    async with attached(api, "janus.plugin.videoroom") as handle, relayed_connection(URL) as connection:
        request = {"request": "join", "ptype": "subscriber", "room": ROOM, "streams": [{"feed": feed}]}
        _, offer = await handle.ask(request)
        assert offer is not None
        await handle.ask({"request": "start"}, await answered(connection, offer))
        tracks = {each.receiver.track.kind: each.receiver.track for each in connection.getTransceivers()}
        async with asyncio.timeout(patience):
            heard, _ = await asyncio.gather(hear(tracks["audio"]), see(tracks["video"], SECONDS * PICTURES_A_SECOND))
        return tones(heard, TONES)


@pytest.mark.parametrize("own", list(OWN_RELAY))
def test_video_room(own: str, tmp_path: Path, certificate: TlsFiles) -> None:
    """What is published reaches the subscriber through the relay, and the recording has it too."""
    converter = need("janus-pp-rec")
    tries = TRIES.get(own, 1)
    with place(tmp_path, certificate, 2, own) as here:
        publisher, subscriber = here.callers.values()
        with Publisher(publisher, here.api, TONES[0], tries=tries).publishing() as feed:
            for _ in range(tries - 1):
                with suppress(TimeoutError):
                    heard = subscriber.run(lambda: watch(here.api, feed, A_TRY))
                    break
            else:
                heard = subscriber.run(lambda: watch(here.api, feed, PATIENCE))
            assert heard == {TONES[0]}
        assert_recorded(here.recordings, converter)
    sessions = here.sessions()
    packets = SECONDS * (PICTURES_A_SECOND + RATE // SAMPLES) // 2
    published, seen = (sessions[host] for host in here.callers)
    assert max(each["packets_from_client"] for each in published) > packets
    assert max(each["packets_to_client"] for each in seen) > packets
    janus_had = sessions.get(here.host, [])
    if own == "none":
        assert janus_had == []
        return
    assert max(each["packets_to_client"] for each in janus_had) > packets
    assert max(each["packets_from_client"] for each in janus_had) > packets
    assert {each["transport"] for each in janus_had} == {TRANSPORT[own]}
    assert {each["tag"] for each in janus_had} == {"janus" if own == "rest" else None}


def assert_recorded(directory: Path, converter: str) -> None:
    """The recorded pictures are those that were published, at their times."""
    source = max(directory.glob("videoroom-*-video-*.mjr"), key=lambda file: file.stat().st_size)
    file = directory / "video.webm"
    subprocess.run([converter, str(source), str(file)], check=True, capture_output=True, timeout=PATIENCE)
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    assert all(map(is_picture, frames))
    assert len(frames) >= SECONDS * PICTURES_A_SECOND
    duration = frames[-1].time - frames[0].time
    assert duration == pytest.approx((len(frames) - 1) / PICTURES_A_SECOND, rel=0.1)


async def call_in(api: str, tone: int) -> set[int]:
    """One who speaks in a tone; the tones that it hears of the others."""
    async with attached(api, "janus.plugin.audiobridge") as handle, relayed_connection(URL) as connection:
        connection.addTrack(Tone(tone))
        await handle.ask({"request": "join", "room": ROOM})
        _, answer = await handle.ask({"request": "configure", "muted": False}, await offered(connection))
        assert answer is not None
        await connection.setRemoteDescription(answer)
        (transceiver,) = connection.getTransceivers()
        wanted, heard = set(TONES) - {tone}, set[int]()
        async with asyncio.timeout(PATIENCE):
            while heard != wanted:  # the last one has yet to come
                heard = tones(await hear(transceiver.receiver.track, skip=0), TONES)
            await asyncio.sleep(SECONDS)
        return heard


def test_audio_bridge(tmp_path: Path, certificate: TlsFiles) -> None:
    """Each caller hears the two others, and not itself; the mix that is recorded holds all three."""
    with place(tmp_path, certificate, len(TONES)) as here:
        calls = [
            node.start(lambda tone=tone: call_in(here.api, tone))  # type: ignore[misc]
            for node, tone in zip(here.callers.values(), TONES, strict=True)
        ]
        assert [each.result(2 * PATIENCE) for each in calls] == [set(TONES) - {tone} for tone in TONES]
    mix = array("h", (here.recordings / "mix.wav").read_bytes()[WAVE_HEADER:])
    seconds = [mix[start : start + RATE] for start in range(0, len(mix) - RATE, RATE)]
    assert any(tones(each, TONES) == set(TONES) for each in seconds)
    sessions = here.sessions()
    packets = SECONDS * RATE // SAMPLES
    for host in here.callers:
        (session,) = sessions[host]
        assert min(session["packets_from_client"], session["packets_to_client"]) > packets
