// Tries every way into the server and says in words what works.

import { endpoint, iceServers, legs, untried } from "./ice.js";
import { reachable } from "./outside.js";

const GATHERING_SECONDS = 12;
const MAPPING_SECONDS = 6;

/**
 * Runs the check. show is called with what there is to show: leg(leg), candidate(row), done(result).
 * pasted: a configuration to try in the place of this server's. Resolves to the result: {legs, candidates, nat, outside, verdict, words, text}.
 */
export async function check(about, show, pasted = null) {
  const configuration = pasted ?? await iceServers();
  const tried = legs(configuration).map((leg) => ({ ...leg, state: "trying", candidates: [], errors: [] }));
  const rows = [];
  tried.forEach((leg) => show.leg(leg));
  const started = performance.now();
  await Promise.all(tried.map((leg) => gather(leg, started, (row) => {
    rows.push(row);
    show.candidate(row);
  }).then(() => show.leg(leg))));
  if (!udpWorks(tried) && tried.some((leg) => leg.kind === "udp")) {
    tried.filter((leg) => leg.state === "same").forEach((leg) => { leg.state = "bad"; show.leg(leg); });
  }
  const [nat, outside] = await Promise.all([natOf(configuration, tried, rows), outsideOf(tried, about)]);
  const result = { legs: tried, candidates: rows, nat, outside, ...judge(tried, nat, outside, about) };
  const beyond = untried(configuration, about);
  if (beyond.length) {
    result.words.push(`Served as well, and for no browser to try: ${beyond.join("; ")}. The command turnsvr probe tries it.`);
  }
  result.text = textOf(result, about);
  show.done(result);
  return result;
}

async function gather(leg, started, onRow) {
  const policy = leg.kind === "stun" ? "all" : "relay";
  let connection;
  try {
    connection = new RTCPeerConnection({ iceServers: [leg.server], iceTransportPolicy: policy });
  } catch (error) {
    leg.state = "bad";
    leg.errors.push({ code: 0, text: error.message });
    return;
  }
  const begun = performance.now();
  const wanted = leg.kind === "stun" ? "srflx" : "relay";
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, GATHERING_SECONDS * 1000);
    const finish = () => { clearTimeout(timer); resolve(); };
    connection.onicecandidateerror = (event) => {
      leg.errors.push({ code: event.errorCode, text: event.errorText });
    };
    connection.onicecandidate = (event) => {
      if (!event.candidate) { finish(); return; }
      if (!event.candidate.candidate) return;
      const row = rowOf(event.candidate, leg, started);
      if (row.type === wanted) {
        leg.time ??= performance.now() - begun;
        leg.candidates.push(row);
        onRow(row);
        if (wanted === "relay") finish();
      } else if (row.type === "host") {
        leg.hosts = [...(leg.hosts ?? []), row];
        onRow(row);
      }
    };
    connection.createDataChannel("check");
    connection.setLocalDescription().catch(finish);
  });
  connection.close();
  leg.state = leg.candidates.length ? "good" : "bad";
  if (leg.kind === "stun" && leg.state === "bad" && leg.hosts?.length && !leg.errors.length) leg.state = "same";
}

function rowOf(candidate, leg, started) {
  const part = candidate.candidate.split(" ");
  const networkId = candidate.candidate.match(/network-id (\d+)/)?.[1];
  return {
    type: candidate.type ?? part[7],
    protocol: candidate.protocol ?? part[2].toLowerCase(),
    address: candidate.address ?? part[4],
    port: candidate.port ?? Number(part[5]),
    priority: candidate.priority ?? Number(part[3]),
    related: candidate.relatedAddress && candidate.relatedAddress !== "0.0.0.0" ? endpoint(candidate.relatedAddress, candidate.relatedPort) : "",
    base: networkId ? `network ${networkId}` : endpoint(candidate.relatedAddress, candidate.relatedPort),
    time: performance.now() - started,
    leg,
  };
}

/**
 * How the NAT between here and the server maps: {kind: "none" | "independent" | "dependent" | "unknown", mapped, hidden}.
 *
 * hidden: the browser does not tell its own addresses, so that no NAT and one that keeps mappings look the same.
 *
 * One socket asks for its reflexive address at every STUN port of the server, and then sends to a relayed address of
 * the server, whose holder sees where that comes from. One mapping for all is endpoint-independent.
 */
async function natOf(configuration, tried, rows) {
  const stun = tried.filter((leg) => leg.kind === "stun");
  const mapped = stun.flatMap((leg) => leg.candidates);
  const hosts = rows.filter((row) => row.type === "host").map((row) => row.address);
  const hidden = hosts.every((address) => address.endsWith(".local"));
  if (!mapped.length) {
    return { kind: stun.some((leg) => leg.state === "same") ? "none" : "unknown", mapped: [] };
  }
  const addresses = [...new Set(mapped.map((row) => row.address))];
  if (mapped.every((row) => hosts.includes(row.address))) return { kind: "none", mapped: addresses };
  try {
    return { kind: await compareMappings(configuration, stun.filter((leg) => leg.state === "good")), mapped: addresses, hidden };
  } catch {
    return { kind: "unknown", mapped: addresses };
  }
}

/** "independent", "dependent" or "unknown"; stun: those legs that answered, each a destination of its own. */
export async function compareMappings(configuration, stun) {
  const near = new RTCPeerConnection({ iceServers: stun.map((leg) => leg.server) });
  const far = new RTCPeerConnection({ ...configuration, iceTransportPolicy: "relay" });
  try {
    const reflexive = [];
    let gathered = false;
    near.onicecandidate = ({ candidate }) => {
      gathered ||= candidate === null;
      if (!candidate?.candidate) return;
      const row = rowOf(candidate, null, 0);
      if (row.type === "srflx") {
        reflexive.push(row);
        far.addIceCandidate(candidate).catch(() => {});
      }
    };
    far.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) near.addIceCandidate(candidate).catch(() => {});
    };
    near.createDataChannel("mapping");
    await near.setLocalDescription();
    await far.setRemoteDescription(stripCandidates(near.localDescription));
    await far.setLocalDescription();
    await near.setRemoteDescription(far.localDescription);
    const end = performance.now() + MAPPING_SECONDS * 1000;
    while (performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      if (mappingsDiffer(reflexive)) return "dependent";
      // Every destination answered, and a browser tells the same reflexive address once.
      if (gathered && reflexive.length && stun.length > 1) return "independent";
      const seen = await sourcesSeen(far);
      if (reflexive.length && seen.length) {
        return seen.some((port) => reflexive.some((row) => row.port === port)) ? "independent" : "dependent";
      }
    }
    return "unknown";
  } finally {
    near.close();
    far.close();
  }
}

function stripCandidates(description) {
  return { type: description.type, sdp: description.sdp.replace(/^a=candidate:.*\r\n/gm, "") };
}

/** Whether one socket has two reflexive addresses of one family. */
function mappingsDiffer(rows) {
  const byBase = new Map();
  for (const row of rows) {
    const base = `${row.base} ${row.address.includes(":") ? 6 : 4}`;
    const other = byBase.get(base);
    if (other && (other.address !== row.address || other.port !== row.port)) return true;
    byBase.set(base, row);
  }
  return false;
}

/** Ports from which checks have reached the relayed address: those of pairs that answered. */
async function sourcesSeen(connection) {
  const stats = await connection.getStats();
  const ports = [];
  stats.forEach((each) => {
    if (each.type !== "candidate-pair" || !(each.requestsReceived || each.state === "succeeded")) return;
    const remote = stats.get(each.remoteCandidateId);
    if (remote?.port) ports.push(remote.port);
  });
  return ports;
}

/** Whether something came back over UDP; an address that is the browser's own may mean as well that nothing did. */
function udpWorks(tried) {
  return tried.some((leg) => (leg.kind === "stun" || leg.kind === "udp") && leg.state === "good");
}

/** What a peer outside gets, by the first way into the relay that works; null where none does. */
async function outsideOf(tried, about) {
  const way = tried.find((leg) => leg.kind !== "stun" && leg.state === "good");
  const stun = tried.filter((leg) => leg.kind === "stun").map((leg) => leg.server);
  return way ? reachable(way.server, stun, about, udpWorks(tried)) : null;
}

function judge(tried, nat, outside, about) {
  const works = (kind) => tried.some((leg) => leg.kind === kind && leg.state === "good");
  const has = (kind) => tried.some((leg) => leg.kind === kind);
  const relays = ["udp", "tcp", "tls"].filter(works);
  const words = [natWords(nat)];
  const todo = [];
  if (outside?.state === "bad") todo.push(outside.text);
  else if (outside) words.push(outside.text);
  for (const leg of tried) {
    if (leg.state === "bad") todo.push(advice(leg, relays, about));
  }
  if (!has("tls")) {
    todo.push("The server offers no TLS. Networks that let only web traffic out need it: give it a certificate, and a TLS listener on port 443.");
  }
  let verdict;
  if (!relays.length) {
    verdict = { state: "bad", text: "The relay cannot be reached from here: calls fail wherever a direct path does." };
  } else if (outside.state === "bad") {
    verdict = { state: "bad", text: "The relay answers, but nobody outside reaches the addresses that it gives: calls to others fail." };
  } else if (works("udp")) {
    const calls = `relayed over ${list(relays)} where they must be.`;
    verdict = outside.state === "good"
      ? { state: "good", text: `It works. Calls get through, ${calls}` }
      : { state: "good", text: `It works as far as can be told from here: two clients of this server get through, ${calls}` };
  } else {
    verdict = { state: "warn", text: `It works, but not over UDP. Calls get through over ${list(relays)}, with more delay when packets are lost.` };
  }
  return { verdict, words, todo };
}

function natWords(nat) {
  const at = nat.mapped.length ? ` The server sees you as ${nat.mapped.join(" and ")}.` : "";
  if (nat.kind === "none") return `There is no address translation (NAT) between you and this server.${at}`;
  if (nat.kind === "independent" && nat.hidden) {
    return `Every destination sees you at the same address and port (endpoint-independent mapping, or no NAT at all): direct calls usually work.${at}`;
  }
  if (nat.kind === "independent") {
    return `You are behind a NAT that keeps one mapping for every destination (endpoint-independent): direct calls usually work.${at}`;
  }
  if (nat.kind === "dependent") {
    return `You are behind a NAT that maps every destination differently (symmetric): direct calls to others behind a NAT usually fail, and the relay is what carries them.${at}`;
  }
  return `How your NAT maps addresses could not be told from here.${at}`;
}

function advice(leg, relays, about) {
  const codes = leg.errors.map((error) => error.code);
  const port = leg.url.match(/:(\d+)(\?|$)/)?.[1];
  if (codes.includes(401)) return `${leg.name}: the server refused the credentials. Is the clock of the server right?`;
  if (codes.includes(486)) return `${leg.name}: you hold as many allocations as one user may. Wait ten minutes, or raise limits.allocations_per_user.`;
  if (codes.includes(508)) return `${leg.name}: the server has no free relay port. Widen relay.ports, or raise limits.allocations.`;
  if (codes.includes(300)) return `${leg.name}: the server sends new clients elsewhere (redirect).`;
  if (leg.kind === "stun") return `${leg.name}: no answer. UDP to port ${port} does not get through: open it in the firewall, here or at the server.`;
  if (leg.kind === "udp") return `${leg.name}: no answer. A firewall here or at the server drops UDP to port ${port}${relays.length ? "; calls take TCP instead" : ""}.`;
  if (leg.kind === "tls" && about.certificateTrusted === false) {
    return `${leg.name}: the server's certificate was made for this run, and browsers refuse such a one. Give the server a certificate (tls.certificate) for the name in the address bar.`;
  }
  if (leg.kind === "tls") return `${leg.name}: no connection. Is TCP port ${port} open, and is the certificate made for this host name and not expired?`;
  return `${leg.name}: no connection. Open TCP port ${port} in the firewall, here or at the server.`;
}

function list(kinds) {
  const names = kinds.map((kind) => kind.toUpperCase());
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

function textOf(result, about) {
  const lines = [`turnsvr check of ${about.host}, ${new Date().toISOString()}`, "", result.verdict.text, ...result.words, ...result.todo, ""];
  for (const leg of result.legs) {
    const time = leg.time === undefined ? "" : ` after ${Math.round(leg.time)} ms`;
    const errors = leg.errors.map((error) => `${error.code} ${error.text}`).join("; ");
    lines.push(`${leg.state === "bad" ? "FAILED" : "ok    "} ${leg.name} (${leg.url})${time}${leg.state === "bad" && errors ? `: ${errors}` : ""}`);
  }
  lines.push("", "candidates:");
  for (const row of result.candidates) {
    lines.push(`  ${String(Math.round(row.time)).padStart(5)} ms  ${row.type.padEnd(5)} ${row.protocol}  ${endpoint(row.address, row.port)}  (${row.leg.url})`);
  }
  return [...lines, "", navigator.userAgent].join("\n");
}
