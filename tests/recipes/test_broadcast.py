"""docs/recipes/janus.md: what is published through the relay becomes segments, which nginx serves and which play."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

from tests.client.coturn import running
from tests.conftest import need, wait_until
from tests.lab.conftest import ready
from tests.lab.netlab import Node
from tests.recipes.janus import ROOM, attached
from tests.recipes.media import PICTURES_A_SECOND, WIDTH
from tests.recipes.place import Publisher, place
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address

FORWARDED = """\
v=0
o=- 0 0 IN IP4 127.0.0.1
s=call
c=IN IP4 127.0.0.1
t=0 0
m=audio 5002 RTP/AVP 111
a=rtpmap:111 opus/48000/2
m=video 5004 RTP/AVP 100
a=rtpmap:100 VP8/90000
"""
ENCODING = ("-nostdin", "-protocol_whitelist", "file,udp,rtp", "-analyzeduration", "10M")
SEGMENTS = (
    *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"),
    *("-r", str(PICTURES_A_SECOND), "-g", str(PICTURES_A_SECOND), "-c:a", "aac"),
    *("-f", "hls", "-hls_time", "1", "-hls_list_size", "0"),
)
SEGMENTS_SEEN = 2
"""Of a second each."""
NGINX = """\
daemon off;
user root;
pid {directory}/nginx.pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    types {{ application/vnd.apple.mpegurl m3u8; video/mp2t ts; }}
    server {{
        listen 80;
        root {directory}/www;
        add_header Cache-Control no-cache;
    }}
}}
"""


def test_broadcast(tmp_path: Path, certificate: TlsFiles) -> None:
    """What is published goes to ffmpeg, which makes segments of it; nginx serves them, and they play."""
    web = tmp_path / "www"
    web.mkdir()
    (tmp_path / "call.sdp").write_text(FORWARDED)
    (tmp_path / "nginx.conf").write_text(NGINX.format(directory=tmp_path))
    player = need("ffprobe")
    encode = [need("ffmpeg"), *ENCODING, "-i", str(tmp_path / "call.sdp"), *SEGMENTS, str(web / "live.m3u8")]
    with place(tmp_path, certificate, 1) as here, ExitStack() as stack:
        (node,) = here.callers.values()
        url = f"http://{here.host}/live.m3u8"
        serving = here.server.inside(need("nginx"), "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path))
        stack.enter_context(running(serving, tmp_path / "nginx.log", ready(here.server, Address(here.host, 80))))
        feed = stack.enter_context(Publisher(node, here.api, 400).publishing())
        with running(here.server.inside(*encode), tmp_path / "ffmpeg.log", lambda: receives(here.server)):
            here.server.run(lambda: forward(here.api, feed))
            wait_until(lambda: here.server.output("curl", "-s", url).count("#EXTINF") >= SEGMENTS_SEEN, "segments")
        probe = (player, "-v", "error", "-of", "json", "-count_frames", "-show_streams", url)
        streams = json.loads(here.server.output(*probe))["streams"]
    found = {each["codec_type"]: each for each in streams}
    assert (found["video"]["codec_name"], found["video"]["width"]) == ("h264", WIDTH)
    assert int(found["video"]["nb_read_frames"]) >= SEGMENTS_SEEN * PICTURES_A_SECOND
    assert found["audio"]["codec_name"] == "aac"


def receives(node: Node) -> bool:
    """Whether somebody there has the port of the forwarded pictures."""
    return f":{5004:04X} " in node.output("cat", "/proc/net/udp")


async def forward(api: str, feed: int) -> None:
    """Has Janus send what a feed publishes to ffmpeg on its own host as well."""
    streams = [{"mid": "0", "port": 5002, "pt": 111}, {"mid": "1", "port": 5004, "pt": 100}]
    async with attached(api, "janus.plugin.videoroom") as handle:
        await handle.ask(
            {"request": "rtp_forward", "room": ROOM, "publisher_id": feed, "host": "127.0.0.1", "streams": streams}
        )
