// Two connections in this page that talk through the relay, and what becomes of their packets.

import { chosenPair, endpoint, iceServers, legs, restricted } from "./ice.js";
import { reachable } from "./outside.js";

const PACKET = 1000;
const BULK_PACKET = 8192;
const TICK = 500;
const PING = 100;
const MAX_BUFFERED = 512 * 1024;
const CONNECT_SECONDS = 15;
const HEADER = 12;

/** One test. onFigures gets {throughput, rtt, loss, jitter} twice a second: bit/s, ms, percent, ms; null for none yet. */
export class Loopback {
  constructor(onFigures) {
    this.onFigures = onFigures;
    this.timers = [];
    this.totals = { sent: 0, received: 0, bytes: 0 };
  }

  /** Connects and begins; rate in bit/s, 0 for as much as passes. Resolves to a text about the path. Throws Error. */
  async start(leg, rate) {
    const configuration = restricted(await iceServers(), leg, true);
    const near = this.near = new RTCPeerConnection(configuration);
    const far = this.far = new RTCPeerConnection(configuration);
    const errors = [];
    for (const [one, other] of [[near, far], [far, near]]) {
      one.onicecandidate = ({ candidate }) => { if (candidate) other.addIceCandidate(candidate).catch(() => {}); };
      one.onicecandidateerror = (event) => errors.push(`${event.errorCode} ${event.errorText}`);
    }
    const load = near.createDataChannel("load", { ordered: false, maxRetransmits: 0 });
    const ping = near.createDataChannel("ping", { ordered: false, maxRetransmits: 0 });
    load.binaryType = "arraybuffer";
    far.ondatachannel = ({ channel }) => {
      channel.binaryType = "arraybuffer";
      channel.onmessage = channel.label === "ping"
        ? ({ data }) => { if (channel.readyState === "open") channel.send(data); }
        : ({ data }) => this.received(data);
    };
    await near.setLocalDescription();
    await far.setRemoteDescription(near.localDescription);
    await far.setLocalDescription();
    await near.setRemoteDescription(far.localDescription);
    await opened([load, ping], errors);
    this.measure(load, ping, rate);
    return this.path();
  }

  /** What a peer outside gets the same way: what passes between two clients of the server says nothing of it. */
  async outside(leg, about) {
    const ways = legs(await iceServers());
    const way = ways.find(({ kind }) => (leg === "any" ? kind !== "stun" : kind === leg));
    return reachable(way.server, ways.filter(({ kind }) => kind === "stun").map(({ server }) => server), about, way.kind === "udp");
  }

  measure(load, ping, rate) {
    this.window = emptyWindow();
    this.jitter = null;
    this.rtt = null;
    ping.onmessage = ({ data }) => { this.rtt = performance.now() - Number(data); };
    this.every(PING, () => { if (ping.readyState === "open") ping.send(String(performance.now())); });
    if (rate) this.paced(load, rate);
    else this.flooded(load);
    let last = performance.now();
    this.every(TICK, () => {
      const now = performance.now();
      this.report((now - last) / 1000);
      last = now;
    });
  }

  paced(load, rate) {
    const interval = 20;
    let owed = 0, last = performance.now();
    this.every(interval, () => {
      const now = performance.now();
      owed = Math.min(owed + (rate / 8 / PACKET) * ((now - last) / 1000), rate / 8 / PACKET);
      last = now;
      while (owed >= 1 && load.bufferedAmount < MAX_BUFFERED) {
        this.send(load, PACKET);
        owed -= 1;
      }
    });
  }

  flooded(load) {
    load.bufferedAmountLowThreshold = MAX_BUFFERED / 2;
    const fill = () => {
      while (load.readyState === "open" && load.bufferedAmount < MAX_BUFFERED) this.send(load, BULK_PACKET);
    };
    load.onbufferedamountlow = fill;
    fill();
  }

  send(load, size) {
    if (load.readyState !== "open") return;
    const packet = new DataView(new ArrayBuffer(size));
    packet.setUint32(0, this.totals.sent);
    packet.setFloat64(4, performance.now());
    this.totals.sent += 1;
    load.send(packet.buffer);
  }

  received(data) {
    if (data.byteLength < HEADER) return;
    const packet = new DataView(data);
    const transit = performance.now() - packet.getFloat64(4);
    if (this.transit !== undefined) {
      const difference = Math.abs(transit - this.transit);
      this.jitter = (this.jitter ?? 0) + (difference - (this.jitter ?? 0)) / 16; // RFC 3550 section 6.4.1
    }
    this.transit = transit;
    this.window.received += 1;
    this.window.bytes += data.byteLength;
    this.window.highest = Math.max(this.window.highest, packet.getUint32(0) + 1);
    this.totals.received += 1;
    this.totals.bytes += data.byteLength;
  }

  report(seconds) {
    const { received, bytes, highest, before } = this.window;
    const expected = highest - before;
    this.window = emptyWindow(highest);
    this.onFigures({
      throughput: (bytes * 8) / seconds,
      rtt: this.rtt,
      loss: expected > 0 ? Math.max(0, (100 * (expected - received)) / expected) : null,
      jitter: this.jitter,
    });
  }

  async path() {
    const chosen = chosenPair(await this.near.getStats());
    if (!chosen) return "connected";
    const { local, remote } = chosen;
    const over = (local.relayProtocol ?? "udp").toUpperCase();
    return `connected over ${over}: ${endpoint(local.address, local.port)} to ${endpoint(remote.address, remote.port)}`;
  }

  every(milliseconds, work) {
    this.timers.push(setInterval(work, milliseconds));
  }

  stop() {
    this.timers.forEach(clearInterval);
    this.near?.close();
    this.far?.close();
  }
}

function emptyWindow(highest = 0) {
  return { received: 0, bytes: 0, highest, before: highest };
}

function opened(channels, errors) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      const why = [...new Set(errors)].join("; ");
      reject(new Error(`No connection through the relay this way${why ? `: ${why}` : ""}. The check tells more.`));
    }, CONNECT_SECONDS * 1000);
    let open = 0;
    for (const channel of channels) {
      channel.onopen = () => {
        open += 1;
        if (open === channels.length) { clearTimeout(timer); resolve(); }
      };
    }
  });
}
