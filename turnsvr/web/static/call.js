// A call in a room: one connection to each other member. Who comes later makes the offer.

import { chosenPair, endpoint, iceServers, restricted } from "./ice.js";
import { Signalling } from "./signalling.js";

const FIGURES = 1000;
const MAX_REJOINS = 5;

export class Call {
  /** show is called with state(text, kind), joined(room), peer(id, peer), gone(id), figures(id, figures). */
  constructor(show) {
    this.show = show;
    this.peers = new Map();
    this.room = null;
    this.rejoins = 0;
  }

  /** Joins a room, or a new one for null, and sends stream to its members. leg: "any", "udp", "tcp" or "tls". */
  async join(room, stream, { policy, leg }) {
    this.stream = stream;
    this.configuration = restricted(await iceServers(), leg, policy === "relay");
    this.room = room;
    this.ended = false;
    await this.connect();
    this.timer = setInterval(() => this.report(), FIGURES);
  }

  async connect() {
    this.signalling = new Signalling({
      onEvent: (kind, message) => this.heard(kind, message).catch((error) => this.show.state(error.message, "bad")),
      onClose: () => this.rejoin(),
    });
    await this.signalling.open();
    this.signalling.send("join", this.room ? { room: this.room } : {});
  }

  async rejoin() {
    if (this.ended || this.rejoins >= MAX_REJOINS) {
      if (!this.ended) this.show.state("The connection to the server is lost.", "bad");
      return;
    }
    this.rejoins += 1;
    this.show.state("The connection to the server is lost; trying again …", "warn");
    await new Promise((resolve) => setTimeout(resolve, 1000 * this.rejoins));
    if (this.ended) return;
    [...this.peers.keys()].forEach((id) => this.drop(id));
    await this.connect().catch(() => this.rejoin());
  }

  async heard(kind, message) {
    if (kind === "joined") {
      this.room = message.room;
      this.rejoins = 0;
      this.show.joined(message.room);
      this.show.state(message.members.length ? "Connecting …" : "Waiting for somebody to open the link.", "");
      for (const id of message.members) await this.offer(id);
    } else if (kind === "peer-left") {
      this.drop(message.id);
      this.show.state(this.peers.size ? "Somebody left." : "The other side left. Waiting for somebody to open the link.", "");
    } else if (kind === "offer") await this.answer(message);
    else if (kind === "answer") await this.peers.get(message.from)?.accept(message.description);
    else if (kind === "candidate") await this.peers.get(message.from)?.add(message.candidate);
    else if (kind === "error") this.show.state(`The server says: ${message.message}.`, "bad");
  }

  async offer(id) {
    await this.peer(id).offer();
  }

  async answer({ from, description }) {
    const peer = this.peers.get(from) ?? this.peer(from);
    await peer.accept(description);
    await peer.answer();
  }

  peer(id) {
    const peer = new Peer(this.configuration, this.stream, {
      send: (kind, message) => this.signalling.send(kind, { ...message, to: id }),
      changed: (state) => this.changed(peer, state),
    });
    this.peers.set(id, peer);
    this.show.peer(id, peer);
    return peer;
  }

  changed(peer, state) {
    if (state === "connected") this.show.state("You are connected.", "good");
    if (state === "disconnected") this.show.state("The connection is interrupted; waiting for it to come back …", "warn");
    if (state === "failed") {
      this.show.state("The connection broke; trying again …", "warn");
      peer.restart().catch(() => {});
    }
  }

  drop(id) {
    this.peers.get(id)?.close();
    this.peers.delete(id);
    this.show.gone(id);
  }

  async replace(stream) {
    this.stream = stream;
    await Promise.all([...this.peers.values()].map((peer) => peer.replace(stream)));
  }

  async report() {
    for (const [id, peer] of this.peers) this.show.figures(id, await peer.figures());
  }

  leave() {
    this.ended = true;
    clearInterval(this.timer);
    [...this.peers.keys()].forEach((id) => this.drop(id));
    this.signalling?.send("leave");
    this.signalling?.close();
  }
}

/** The connection to one member. */
class Peer {
  constructor(configuration, stream, { send, changed }) {
    this.send = send;
    this.early = [];
    this.before = null;
    const connection = this.connection = new RTCPeerConnection(configuration);
    this.media = new MediaStream();
    stream.getTracks().forEach((track) => connection.addTrack(track, stream));
    connection.ontrack = ({ track }) => this.media.addTrack(track);
    connection.onicecandidate = ({ candidate }) => { if (candidate) send("candidate", { candidate }); };
    connection.onconnectionstatechange = () => changed(connection.connectionState);
  }

  async offer(options) {
    this.offerer = true;
    const { connection } = this;
    // So that the other side can send sound and picture even if this one has none.
    const kinds = connection.getTransceivers().map(({ sender }) => sender.track?.kind);
    for (const kind of ["audio", "video"]) if (!kinds.includes(kind)) connection.addTransceiver(kind);
    await connection.setLocalDescription(await connection.createOffer(options));
    this.send("offer", { description: connection.localDescription });
  }

  async answer() {
    await this.connection.setLocalDescription();
    this.send("answer", { description: this.connection.localDescription });
  }

  async accept(description) {
    await this.connection.setRemoteDescription(description);
    for (const candidate of this.early.splice(0)) await this.add(candidate);
  }

  async add(candidate) {
    if (!this.connection.remoteDescription) { this.early.push(candidate); return; }
    await this.connection.addIceCandidate(candidate).catch(() => {});
  }

  async restart() {
    if (this.offerer) await this.offer({ iceRestart: true });
  }

  async replace(stream) {
    for (const track of stream.getTracks()) {
      const sender = this.connection.getTransceivers().find(({ receiver }) => receiver.track.kind === track.kind)?.sender;
      await sender?.replaceTrack(track);
    }
  }

  /** What getStats() says, in few words: path, round trip, rates, picture. */
  async figures() {
    const stats = await this.connection.getStats();
    const chosen = chosenPair(stats);
    const video = [...stats.values()].find((each) => each.type === "inbound-rtp" && each.kind === "video");
    const figures = { state: this.connection.connectionState, framesDecoded: video?.framesDecoded ?? 0 };
    figures.picture = video?.frameWidth ? `${video.frameWidth} × ${video.frameHeight}, ${Math.round(video.framesPerSecond ?? 0)} frames a second, ${figures.framesDecoded} so far` : "none yet";
    if (!chosen) return figures;
    const { pair, local, remote } = chosen;
    const now = performance.now();
    Object.assign(figures, {
      local: pathOf(local),
      remote: pathOf(remote),
      localType: local?.candidateType,
      remoteType: remote?.candidateType,
      relayProtocol: local?.relayProtocol,
      rtt: pair.currentRoundTripTime === undefined ? null : pair.currentRoundTripTime * 1000,
      bytesSent: pair.bytesSent ?? 0,
      bytesReceived: pair.bytesReceived ?? 0,
    });
    if (this.before) {
      const seconds = (now - this.before.at) / 1000;
      figures.sending = ((figures.bytesSent - this.before.bytesSent) * 8) / seconds;
      figures.receiving = ((figures.bytesReceived - this.before.bytesReceived) * 8) / seconds;
    }
    this.before = { at: now, ...figures };
    return figures;
  }

  close() {
    this.connection.close();
  }
}

function pathOf(candidate) {
  if (!candidate) return "unknown";
  const names = { host: "direct", srflx: "direct, through a NAT", prflx: "direct, through a NAT", relay: "relayed" };
  const over = candidate.candidateType === "relay" && candidate.relayProtocol ? `, server reached over ${candidate.relayProtocol.toUpperCase()}` : "";
  const address = candidate.address ? `, ${endpoint(candidate.address, candidate.port)}` : "";
  return `${names[candidate.candidateType] ?? candidate.candidateType}${over}${address}`;
}
