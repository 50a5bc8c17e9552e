"""The far end of a browser's call in Python: joins a room, sends sound and picture and records the picture that comes.

usage: far_end.py BASE_URL ROOM FILE SECONDS
"""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from typing import Any

import socketio
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole, MediaRecorder
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack
from aiortc.sdp import candidate_from_sdp


class FarEnd:
    """Answers the offer of whoever joins after it."""

    def __init__(self, configuration: RTCConfiguration, file: str) -> None:
        self.signalling = socketio.AsyncClient()
        self.recorded = asyncio.Event()
        self._connection = RTCPeerConnection(configuration)
        self._recorder = MediaRecorder(file)
        self._unrecorded = MediaBlackhole()
        self._connection.addTrack(AudioStreamTrack())
        self._connection.addTrack(VideoStreamTrack())
        self._connection.on("track", self._receive)
        self._connection.on("connectionstatechange", self._changed)
        self.signalling.on("offer", self._offered)
        self.signalling.on("candidate", self._candidate)
        self.signalling.on("joined", lambda message: print("joined", flush=True))

    def _receive(self, track: MediaStreamTrack) -> None:
        (self._recorder if track.kind == "video" else self._unrecorded).addTrack(track)

    async def _offered(self, message: dict[str, Any]) -> None:
        await self._connection.setRemoteDescription(RTCSessionDescription(**message["description"]))
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        answer = self._connection.localDescription
        description = {"type": answer.type, "sdp": answer.sdp}
        await self.signalling.emit("answer", {"to": message["from"], "description": description})

    async def _candidate(self, message: dict[str, Any]) -> None:
        text = message["candidate"]["candidate"]
        if not text:
            return
        candidate = candidate_from_sdp(text.removeprefix("candidate:"))
        candidate.sdpMid = message["candidate"]["sdpMid"]
        candidate.sdpMLineIndex = message["candidate"]["sdpMLineIndex"]
        await self._connection.addIceCandidate(candidate)

    async def _changed(self) -> None:
        print(self._connection.connectionState, flush=True)
        if self._connection.connectionState == "connected":
            await self._unrecorded.start()
            await self._recorder.start()
            self.recorded.set()

    async def stop(self) -> None:
        await self._recorder.stop()
        await self._unrecorded.stop()
        await self._connection.close()
        await self.signalling.disconnect()


async def main(base: str, room: str, file: str, seconds: float) -> None:
    servers = json.load(urllib.request.urlopen(f"{base}ice-servers"))["iceServers"]  # noqa: ASYNC210 - nothing else runs
    end = FarEnd(RTCConfiguration([RTCIceServer(**server) for server in servers]), file)
    await end.signalling.connect(base)
    await end.signalling.emit("join", {"room": room})
    await asyncio.wait_for(end.recorded.wait(), 60)
    await asyncio.sleep(seconds)
    await end.stop()
    print("recorded", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
