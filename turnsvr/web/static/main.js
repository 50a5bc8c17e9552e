// The page: tabs, and what each of them shows.

import { Call } from "./call.js";
import { check } from "./check.js";
import { snippets } from "./code.js";
import { KeyNeeded, endpoint, fillLegs, iceServers, setKey } from "./ice.js";
import * as looptab from "./looptab.js";
import { endStream, source } from "./media.js";
import { $, copy, element, notice, rate, verdict } from "./page.js";
import { fromLink, linkTo, pastedServers, reportOf } from "./report.js";
import { useArrowKeys } from "./tabs.js";

const TABS = ["check", "loopback", "call", "code"];
let about = null;

async function begin() {
  if (!window.RTCPeerConnection) {
    notice("This browser has no WebRTC, or it is switched off.");
    return;
  }
  try {
    about = await (await fetch("/page.json", { cache: "no-store" })).json();
  } catch {
    notice("The server does not answer. Is it still running?");
    return;
  }
  $("host").textContent = `at ${about.host}`;
  $("version").textContent = about.version;
  if (about.draining) notice("This server is about to stop: it takes no new sessions.");
  if (!about.signalling) $("tab-call").hidden = true;
  looptab.begin(about);
  showSnippets();
  window.addEventListener("hashchange", route);
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey($("key").value.trim());
    start();
  });
  start();
}

/** Begins, or begins again with a key. */
async function start() {
  try {
    const configuration = await iceServers();
    $("key-form").hidden = true;
    fillLegs($("loopback-leg"), configuration);
    fillLegs($("call-leg"), configuration);
    notice("");
  } catch (error) {
    if (error instanceof KeyNeeded) {
      notice($("key-form").hidden ? "" : error.message);
      $("key-form").hidden = false;
      $("key").focus();
    } else notice(error.message);
  }
  route();
}

function currentTab() {
  if (location.hash.startsWith("#room=")) return "call";
  const name = location.hash.slice(1);
  return TABS.includes(name) ? name : "check";
}

function route() {
  const current = currentTab();
  for (const name of TABS) {
    $(name).hidden = name !== current;
    $(`tab-${name}`).setAttribute("aria-selected", String(name === current));
    $(`tab-${name}`).tabIndex = name === current ? 0 : -1;
  }
  const invited = invitedRoom();
  if (!call) {
    $("call-start").textContent = invited ? "Join the call" : "Make a room";
    $("call-lead").textContent = invited
      ? "You have been invited to a call. Choose what to send, and join."
      : "Make a room, send its link to somebody, and talk. Nothing is recorded or stored.";
  }
  if (invited && !call && !chosenSource && navigator.mediaDevices) $("call-source").value = "camera";
  const report = fromLink(location.hash);
  if (report) showReport(report);
  else if (current === "check" && about && !checked && $("key-form").hidden) runCheck();
}

const invitedRoom = () => (location.hash.startsWith("#room=") ? decodeURIComponent(location.hash.slice(6)) : null);

// Check

let checked = false;
let lastResult = null;
let lastReport = null;

const RESULTS = ["check-copy", "check-json", "check-link"];

function clearCheck() {
  for (const id of RESULTS) $(id).disabled = true;
  for (const id of ["check-legs", "check-words", "check-candidates"]) $(id).replaceChildren();
  $("check-count").textContent = "";
}

/** pasted: ICE servers in the place of this server's. */
async function runCheck(pasted = null) {
  checked = true;
  clearCheck();
  $("check-start").disabled = true;
  verdict($("check-verdict"), "Trying …");
  const host = pasted ? "a pasted list" : about.host;
  const items = new Map();
  let count = 0;
  try {
    const seen = pasted ? { host, peer: null, draining: false } : about;
    lastResult = await check(seen, {
      leg: (leg) => showLeg(items, leg),
      candidate: (row) => {
        count += 1;
        $("check-count").textContent = `(${count})`;
        showCandidate(row);
      },
      done: showResult,
    }, pasted);
    lastReport = reportOf(lastResult, host);
    for (const id of RESULTS) $(id).disabled = false;
  } catch (error) {
    verdict($("check-verdict"), error.message, "bad");
    if (error instanceof KeyNeeded) $("key-form").hidden = false;
  }
  $("check-start").disabled = false;
}

function showLeg(items, leg) {
  const item = items.get(leg) ?? element("li");
  if (!items.has(leg)) $("check-legs").append(item);
  items.set(leg, item);
  const marks = { trying: "…", good: "✓", bad: "✗", same: "✓" };
  const spoken = { trying: "trying", good: "works", bad: "fails", same: "works" };
  item.className = leg.state === "same" ? "good" : leg.state;
  item.dataset.kind = leg.kind;
  item.dataset.state = leg.state;
  const mark = element("span", "mark", marks[leg.state]);
  mark.setAttribute("aria-label", spoken[leg.state]);
  item.replaceChildren(mark, element("span", "name", leg.name));
  item.append(element("span", "time", leg.time === undefined ? "" : `found after ${Math.round(leg.time)} ms`));
  const found = leg.candidates.map((row) => endpoint(row.address, row.port)).join(", ");
  if (found) item.append(element("span", "found", leg.kind === "stun" ? `you are ${found}` : `relays at ${found}`));
  else if (leg.state === "same") item.append(element("span", "found", "your own address, without a NAT"));
  else if (leg.state === "bad") {
    const last = leg.errors.at(-1);
    item.append(element("span", "found", last ? `${last.code} ${last.text}` : "no answer"));
  }
}

function showCandidate(row) {
  const line = element("tr");
  const over = row.type === "relay" ? row.leg.kind.toUpperCase() : row.protocol.toUpperCase();
  for (const text of [`${Math.round(row.time)} ms`, row.type, over, endpoint(row.address, row.port), row.related ?? "", String(row.priority ?? ""), row.leg.url]) {
    line.append(element("td", "", text));
  }
  $("check-candidates").append(line);
}

function showResult(result) {
  verdict($("check-verdict"), `${result.verdict.state === "good" ? "✓ " : ""}${result.verdict.text}`, result.verdict.state);
  $("check-words").replaceChildren(
    ...result.words.map((text) => element("p", "", text)),
    ...result.todo.map((text) => element("p", "todo", text)),
  );
}

/** Shows the report that a link holds. */
function showReport(report) {
  clearCheck();
  const items = new Map();
  report.legs.forEach((leg) => showLeg(items, leg));
  report.candidates.forEach(showCandidate);
  $("check-count").textContent = `(${report.candidates.length})`;
  showResult(report);
  $("check-words").prepend(element("p", "note", `A report of ${report.host}, ${report.at}, ${report.browser}`));
}

$("check-start").addEventListener("click", () => {
  if (location.hash.startsWith("#report=")) history.replaceState(null, "", "#check");
  runCheck();
});
$("check-json").addEventListener("click", () => copy($("check-json"), JSON.stringify(lastReport, null, 2)));
$("check-link").addEventListener("click", () => copy($("check-link"), linkTo(lastReport)));
$("check-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("check-paste-error").textContent = "";
  try {
    runCheck(pastedServers($("check-servers").value));
  } catch (error) {
    $("check-paste-error").textContent = error.message;
  }
});
$("check-copy").addEventListener("click", () => copy($("check-copy"), lastResult.text));

// Call

let call = null;
let sent = null;
let chosenSource = false;
const SWITCHES = { "call-mute": "audio", "call-dark": "video" };

function showSwitches(shown) {
  for (const [id, kind] of Object.entries(SWITCHES)) {
    $(id).hidden = !shown || !sent?.getTracks().some((track) => track.kind === kind);
    $(id).setAttribute("aria-pressed", "false");
  }
  $("call").classList.toggle("in-call", shown);
}

function applySwitches() {
  for (const [id, kind] of Object.entries(SWITCHES)) {
    const off = $(id).getAttribute("aria-pressed") === "true";
    sent?.getTracks().filter((track) => track.kind === kind).forEach((track) => { track.enabled = !off; });
  }
}

const securePage = () => (about.securePort ? `https://${location.hostname}:${about.securePort}/${location.hash}` : "");

async function startCall() {
  $("call-start").disabled = true;
  try {
    sent = await source($("call-source").value, securePage());
    showVideo("me", "You", sent, true);
    call = window.turnsvrCall = new Call({
      state: (text, kind) => verdict($("call-state"), text, kind),
      joined: showRoom,
      peer: (id, peer) => showVideo(id, "The other side", peer.media, false),
      gone: (id) => $(`video-${id}`)?.remove(),
      figures: showFigures,
    });
    verdict($("call-state"), "Connecting to the server …");
    await call.join(invitedRoom(), sent, { policy: $("call-policy").value, leg: $("call-leg").value });
    $("call-start").hidden = true;
    $("call-leave").hidden = false;
    showSwitches(true);
    $("call-policy").disabled = $("call-leg").disabled = true;
  } catch (error) {
    endCall();
    verdict($("call-state"), error.message, "bad");
    if (error instanceof KeyNeeded) $("key-form").hidden = false;
  }
  $("call-start").disabled = false;
}

function showRoom(room) {
  history.replaceState(null, "", `#room=${room}`);
  $("call-link").value = location.href;
  $("call-share").hidden = false;
  $("call-send").hidden = !navigator.share;
}

function showVideo(id, name, stream, muted) {
  const figure = element("figure");
  figure.id = `video-${id}`;
  const video = element("video");
  video.autoplay = video.playsInline = true;
  video.muted = muted;
  video.srcObject = stream;
  const play = () => video.play().catch(() => {
    if (video.muted) return;
    video.muted = true;   // a browser that wants a click first still shows the picture
    video.controls = true;
    video.play().catch(() => {});
  });
  stream.addEventListener("addtrack", play);
  play();
  const figures = element("dl");
  figure.append(video, element("figcaption", "", name), figures);
  $(`video-${id}`)?.remove();
  $("call-videos").append(figure);
}

/** Why a call takes the path that it takes, by its chosen pair of candidates. */
function whyThisPath({ localType, remoteType }) {
  if (localType !== "relay" && remoteType !== "relay") return "a direct pair answered, and such a pair is preferred";
  if (localType === "relay" && $("call-policy").value === "relay") return "relayed, since this side goes through the server only";
  if (localType !== "relay") return "relayed by the other side's server: no direct pair answered, or that side allows none";
  return "relayed: no direct pair answered, so that a NAT or a firewall lies between";
}

function showFigures(id, figures) {
  const place = $(`video-${id}`)?.querySelector("dl");
  if (!place) return;
  const rows = {
    "this side": figures.local ?? figures.state,
    "other side": figures.remote,
    "why so": figures.local && whyThisPath(figures),
    "round trip": figures.rtt == null ? undefined : `${figures.rtt.toFixed(1)} ms`,
    receiving: figures.receiving === undefined ? undefined : rate(figures.receiving),
    sending: figures.sending === undefined ? undefined : rate(figures.sending),
    picture: figures.picture,
  };
  place.replaceChildren(
    ...Object.entries(rows).filter(([, text]) => text !== undefined)
      .flatMap(([name, text]) => [element("dt", "", name), element("dd", "", text)]),
  );
  Object.assign(place.dataset, {
    local: figures.localType ?? "", remote: figures.remoteType ?? "", over: figures.relayProtocol ?? "",
    frames: figures.framesDecoded, received: figures.bytesReceived ?? 0,
  });
}

function endCall() {
  call?.leave();
  call = window.turnsvrCall = null;
  endStream(sent);
  sent = null;
  $("call-videos").replaceChildren();
  $("call-share").hidden = $("call-leave").hidden = true;
  $("call-start").hidden = false;
  showSwitches(false);
  $("call-policy").disabled = $("call-leg").disabled = false;
  verdict($("call-state"), "");
}

$("call-start").addEventListener("click", startCall);
$("call-leave").addEventListener("click", () => {
  endCall();
  history.replaceState(null, "", "#call");
  route();
});
for (const id of Object.keys(SWITCHES)) {
  $(id).addEventListener("click", () => {
    $(id).setAttribute("aria-pressed", String($(id).getAttribute("aria-pressed") !== "true"));
    applySwitches();
  });
}
$("call-source").addEventListener("change", async () => {
  chosenSource = true;
  if (!call) return;
  try {
    const next = await source($("call-source").value, securePage());
    await call.replace(next);
    endStream(sent);
    sent = next;
    applySwitches();
    showVideo("me", "You", sent, true);
  } catch (error) {
    verdict($("call-state"), error.message, "warn");
  }
});
$("call-copy").addEventListener("click", () => copy($("call-copy"), $("call-link").value));
$("call-send").addEventListener("click", () => navigator.share({ url: $("call-link").value }).catch(() => {}));
window.addEventListener("pagehide", () => call?.leave());

// Code

function showSnippets() {
  $("code-snippets").replaceChildren(...snippets(about).flatMap(({ title, text }) => {
    const head = element("div", "snippet-head");
    const button = element("button", "", "Copy");
    button.addEventListener("click", () => copy(button, text));
    head.append(element("h3", "", title), button);
    return [head, element("pre", "", text)];
  }));
}

useArrowKeys(document.querySelector('[role="tablist"]'));
begin();
