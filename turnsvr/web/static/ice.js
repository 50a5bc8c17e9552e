// What the server gives: its ICE servers, and the ways into it.

let key = sessionStorage.getItem("key") || "";
let cached = null;

/** The server gives nothing to callers without a key, or not to this one. */
export class KeyNeeded extends Error {}

export function setKey(value) {
  key = value;
  cached = null;
  sessionStorage.setItem("key", value);
}

/** An RTCConfiguration of this server, good for a minute at least. Throws KeyNeeded, or Error with a text for people. */
export async function iceServers() {
  if (cached && cached.until > Date.now() + 60_000) return cached.configuration;
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let answer;
  try {
    answer = await fetch("/ice-servers", { headers, cache: "no-store" });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new KeyNeeded(key ? "The server does not know this key." : "An API key is needed.");
  if (!answer.ok) throw new Error(`The server gave no credentials: ${body.error || answer.status}.`);
  cached = { configuration: body, until: Date.now() + body.ttl * 1000 };
  return body;
}

/** The ways into the server, in order: {name, kind: "stun" | "udp" | "tcp" | "tls", server}, one URL each. */
export function legs(configuration) {
  const found = [];
  for (const server of configuration.iceServers) {
    for (const url of [server.urls].flat()) {
      if (overDtls(url)) continue;
      const kind = kindOf(url);
      found.push({ name: nameOf(kind, url), kind, url, server: { ...server, urls: [url] } });
    }
  }
  return found;
}

/** What the server serves and no browser can try, in words for a list: DTLS, and what RTCPeerConnection does not ask for. */
export function untried(configuration, about) {
  const dtls = configuration.iceServers.flatMap((server) => [server.urls].flat()).filter(overDtls);
  const found = dtls.length ? [`TURN over DTLS (${dtls.join(", ")})`] : [];
  if (about.relaysTcp) found.push("relaying over TCP to peers (RFC 6062)");
  return found;
}

function overDtls(url) {
  return url.startsWith("turns:") && url.includes("transport=udp");
}

function kindOf(url) {
  if (url.startsWith("stun:")) return "stun";
  if (url.startsWith("turns:")) return "tls";
  return url.includes("transport=tcp") ? "tcp" : "udp";
}

function nameOf(kind, url) {
  const port = url.match(/:(\d+)(\?|$)/)?.[1] ?? "";
  const names = { stun: "Finding your address", udp: "Relay over UDP", tcp: "Relay over TCP", tls: "Relay over TLS" };
  return `${names[kind]}, port ${port}`;
}

/** The configuration with one kind of way in, or with every one for "any"; relay: no other candidates. */
export function restricted(configuration, kind, relay) {
  const servers = kind === "any"
    ? configuration.iceServers
    : legs(configuration).filter((leg) => leg.kind === kind).map((leg) => leg.server);
  const forced = relay || configuration.iceTransportPolicy === "relay";
  return { iceServers: servers, iceTransportPolicy: forced ? "relay" : "all" };
}

/** Fills a select element with the ways in that this server has. */
export function fillLegs(select, configuration) {
  const names = { any: "whatever is fastest", udp: "UDP", tcp: "TCP", tls: "TLS" };
  const kinds = new Set(legs(configuration).map((leg) => leg.kind));
  const chosen = select.value;
  select.replaceChildren();
  for (const [kind, name] of Object.entries(names)) {
    if (kind === "any" || kinds.has(kind)) select.append(new Option(name, kind));
  }
  if ([...select.options].some((option) => option.value === chosen)) select.value = chosen;
}

/** The chosen candidate pair of a connection as {pair, local, remote}, or null. */
export function chosenPair(stats) {
  let pair = null;
  stats.forEach((each) => {
    if (each.type === "transport" && each.selectedCandidatePairId) pair = stats.get(each.selectedCandidatePairId);
  });
  if (!pair) {
    stats.forEach((each) => {
      if (each.type === "candidate-pair" && each.nominated && each.state === "succeeded") pair = each;
    });
  }
  return pair && { pair, local: stats.get(pair.localCandidateId), remote: stats.get(pair.remoteCandidateId) };
}

/** "1.2.3.4:5" or "[::1]:5". */
export function endpoint(address, port) {
  return address?.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}
