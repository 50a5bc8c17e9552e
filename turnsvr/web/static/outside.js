// Whether others reach a relayed address: this browser sends to it from a socket of its own.

const SECONDS = 8;
const PRIVATE = /^(10\.|127\.|169\.254\.|172\.(1[6-9]|2\d|3[01])\.|192\.168\.|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.|f[cd]|fe80:|::1$)/i;

/**
 * Tries one way into the relay. server: of one turn: URL; stun: servers that tell this browser's own address; udp: whether
 * UDP is known to get from here to the server.
 *
 * Resolves to {state: "good" | "bad" | "unknown", text}. Two connections: one has a relayed address and nothing else, the
 * other has no relay. The relay has to permit the other's address, and must not send to its port first: that would open a
 * stateful firewall for the answer, and everything would look well. So it is told the address with a wrong port.
 */
export async function reachable(server, stun, about, udp) {
  if (about.peer?.verdict === "own") {
    return { state: "unknown", text: `This browser runs on the server's own host (${about.peer.address}), whose packets pass no firewall. Open this page on another machine to see whether others reach the relay.` };
  }
  const relay = new RTCPeerConnection({ iceServers: [server], iceTransportPolicy: "relay" });
  const peer = new RTCPeerConnection({ iceServers: stun });
  const seen = { own: [], relayed: [], mapped: false };
  try {
    trickle(relay, peer, seen);
    const opened = new Promise((resolve) => {
      peer.createDataChannel("outside").onopen = () => resolve(true);
      setTimeout(() => resolve(false), SECONDS * 1000);
    });
    await peer.setLocalDescription();
    await relay.setRemoteDescription(bare(peer.localDescription));
    await relay.setLocalDescription();
    await peer.setRemoteDescription(bare(relay.localDescription));
    if (await opened) return { state: "good", text: "Others reach the relay: packets got to its address from outside and back." };
    return judge(seen, about, udp);
  } catch (error) {
    return { state: "unknown", text: `Whether others reach the relay could not be tried: ${error.message}` };
  } finally {
    relay.close();
    peer.close();
  }
}

function trickle(relay, peer, seen) {
  relay.onicecandidate = ({ candidate }) => {
    if (!candidate?.candidate) return;
    seen.relayed.push(candidate.address ?? candidate.candidate.split(" ")[4]);
    peer.addIceCandidate(candidate).catch(() => {});
  };
  peer.onicecandidate = ({ candidate }) => {
    if (!candidate?.candidate) return;
    const part = candidate.candidate.split(" ");
    if (part[2].toLowerCase() !== "udp") return;
    if (!part[4].endsWith(".local")) seen.own.push(part[4]);
    seen.mapped ||= part[7] === "srflx";
    part[5] = String(otherPort(Number(part[5])));
    relay.addIceCandidate({ ...candidate.toJSON(), candidate: part.join(" ") }).catch(() => {});
  };
}

/** Another port, which no socket of this page has. */
function otherPort(port) {
  return port > 32768 ? port - 16384 : port + 16384;
}

function bare(description) {
  return { type: description.type, sdp: description.sdp.replace(/^a=(candidate:.*|end-of-candidates)\r\n/gm, "") };
}

function judge(seen, about, udp) {
  const { address, verdict } = about.peer ?? {};
  const relayed = seen.relayed[0];
  if (!relayed) return { state: "unknown", text: "Whether others reach the relay could not be tried: it gave no address this time." };
  const mine = [...new Set(seen.own)];
  if (verdict === "refused" && (!mine.length || mine.includes(address) || mine.every((each) => PRIVATE.test(each)))) {
    return { state: "unknown", text: `Whether others reach the relay cannot be told from here: the server refuses ${address}, the address at which it sees you, as a peer${PRIVATE.test(address) ? ", as a public server should: it is a private one" : ""}. Open this page from another network, or allow that address (peers.allow).` };
  }
  if (!udp && !seen.mapped) {
    return { state: "unknown", text: "Whether others reach the relay cannot be told from here: no UDP gets out of this network." };
  }
  const inside = mine.length && mine.every((each) => PRIVATE.test(each)) && !PRIVATE.test(relayed)
    ? " From inside the server's own network a router that does not hairpin looks the same: try from elsewhere." : "";
  return { state: "bad", text: `Nobody outside reaches the relay: no packet from here arrived at ${relayed}. Two usual causes: relay.external is wrong or missing, so that ${relayed} is not the server's public address; or a firewall or security group drops UDP to relay.ports (49152-65535 by default), which have to be open.${inside}` };
}
