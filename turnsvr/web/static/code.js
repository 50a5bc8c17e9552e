// The snippets that an app needs, filled with this server's URL.

export function snippets(about) {
  const base = location.origin;
  const key = about.keyNeeded;
  const jsKey = key ? `, {\n  headers: { Authorization: "Bearer YOUR_API_KEY" }  // in a public page ask your own server instead\n}` : "";
  const pythonKey = key ? `, headers={"Authorization": "Bearer YOUR_API_KEY"}` : "";
  return [
    {
      title: "JavaScript: connect",
      text: `const answer = await fetch("${base}/ice-servers"${jsKey});
const connection = new RTCPeerConnection(await answer.json());`,
    },
    {
      title: "JavaScript: find each other in a room",
      hidden: !about.signalling,
      text: `import { io } from "socket.io-client";

const signalling = io("${base}");
const send = (kind, message) => signalling.emit(kind, message);
connection.onicecandidate = ({ candidate }) => candidate && send("candidate", { candidate });

signalling.on("joined", async ({ room, members }) => {
  console.log("send this name to the other side:", room);
  if (members.length) {                       // who comes later makes the offer
    await connection.setLocalDescription();
    send("offer", { description: connection.localDescription });
  }
});
signalling.on("offer", async ({ description }) => {
  await connection.setRemoteDescription(description);
  await connection.setLocalDescription();
  send("answer", { description: connection.localDescription });
});
signalling.on("answer", ({ description }) => connection.setRemoteDescription(description));
signalling.on("candidate", ({ candidate }) => connection.addIceCandidate(candidate));
send("join", { room: nameFromTheOtherSide });   // without a name: {}`,
    },
    {
      title: "Python: connect with aiortc",
      text: `import json, urllib.request
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

request = urllib.request.Request("${base}/ice-servers"${pythonKey})
servers = json.load(urllib.request.urlopen(request))["iceServers"]
connection = RTCPeerConnection(RTCConfiguration([RTCIceServer(**server) for server in servers]))`,
    },
    {
      title: "Python: your server, for its users",
      text: `import json, urllib.parse, urllib.request

def ice_servers(user: str, ttl: int = 3600) -> dict:
    """What new RTCPeerConnection() takes; the API key stays on this side."""
    query = urllib.parse.urlencode({"user": user, "ttl": ttl})
    request = urllib.request.Request(f"${base}/ice-servers?{query}"${pythonKey})
    return json.load(urllib.request.urlopen(request))`,
    },
  ].filter((each) => !each.hidden);
}
