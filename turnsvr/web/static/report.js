// The result of a check as JSON and as a link: what was found, without user names, passwords and keys.

const MOST = 20_000;

/** What may leave this page: no credential is in it. */
export function reportOf(result, host) {
  return {
    version: 1,
    at: new Date().toISOString(),
    host,
    browser: navigator.userAgent,
    verdict: result.verdict,
    words: result.words,
    todo: result.todo,
    legs: result.legs.map(({ name, kind, url, state, time, errors, candidates }) => ({
      name, kind, url, state, errors, time: time === undefined ? undefined : Math.round(time),
      candidates: candidates.map(({ address, port }) => ({ address, port })),
    })),
    candidates: result.candidates.map(({ time, type, protocol, address, port, related, priority, leg }) => ({
      time: Math.round(time), type, protocol, address, port, related, priority, leg: { kind: leg.kind, url: leg.url },
    })),
  };
}

export function linkTo(report) {
  const bytes = new TextEncoder().encode(JSON.stringify(report));
  const text = btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  return `${location.origin}/#report=${text}`;
}

/** The report of such a link, null where it is none. */
export function fromLink(hash) {
  if (!hash.startsWith("#report=") || hash.length > MOST) return null;
  try {
    const binary = atob(hash.slice(8).replace(/-/g, "+").replace(/_/g, "/"));
    const report = JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (each) => each.charCodeAt(0))));
    const lists = [report.words, report.todo, report.legs, report.candidates];
    if (report.version !== 1 || !lists.every(Array.isArray) || typeof report.verdict?.text !== "string") return null;
    report.legs.forEach((leg) => { leg.candidates ??= []; leg.errors ??= []; });
    return report;
  } catch {
    return null;
  }
}

/** The RTCConfiguration in pasted text: a list of ICE servers, or an object with one. Throws Error for people. */
export function pastedServers(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("This is no JSON: write names and texts in double quotes.");
  }
  const servers = Array.isArray(found) ? found : found?.iceServers ?? found?.ice_servers ?? (found?.urls ? [found] : null);
  const list = [servers].flat().filter((each) => each && (each.urls ?? each.url));
  if (!list.length) throw new Error("There is no ICE server in it: a list of objects with urls is wanted.");
  const plain = list.map(({ urls, url, username, credential }) => {
    const all = [urls ?? url].flat().map(String);
    return username === undefined ? { urls: all } : { urls: all, username: String(username), credential: String(credential) };
  });
  const wrong = plain.flatMap((each) => each.urls).find((url) => !/^(stun|stuns|turn|turns):/.test(url));
  if (wrong) throw new Error(`${wrong} is no STUN or TURN URL.`);
  return { iceServers: plain };
}
