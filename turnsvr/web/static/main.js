// The page: tabs, and what each of them shows.

import { Call } from "./call.js";
import { Chart } from "./chart.js";
import { check } from "./check.js";
import { snippets } from "./code.js";
import { KeyNeeded, endpoint, fillLegs, iceServers, setKey } from "./ice.js";
import { Loopback } from "./loopback.js";
import { endStream, source } from "./media.js";

const $ = (id) => document.getElementById(id);
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

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
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
  }
  const invited = invitedRoom();
  if (!call) {
    $("call-start").textContent = invited ? "Join the call" : "Make a room";
    $("call-lead").textContent = invited
      ? "You have been invited to a call. Choose what to send, and join."
      : "Make a room, send its link to somebody, and talk. Nothing is recorded or stored.";
  }
  if (current === "check" && about && !checked && $("key-form").hidden) runCheck();
}

const invitedRoom = () => (location.hash.startsWith("#room=") ? decodeURIComponent(location.hash.slice(6)) : null);

function verdict(element, text, kind = "") {
  element.textContent = text;
  element.className = `verdict ${kind}`;
}

async function copy(button, text) {
  const before = button.textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyByHand(text);
  }
  button.textContent = done ? "Copied" : "Select and copy it by hand";
  setTimeout(() => { button.textContent = before; }, 2000);
}

/** Where the clipboard is closed, as on pages over plain http. */
function copyByHand(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Check

let checked = false;
let lastResult = null;

async function runCheck() {
  checked = true;
  $("check-start").disabled = true;
  $("check-copy").disabled = true;
  for (const id of ["check-legs", "check-words", "check-candidates"]) $(id).replaceChildren();
  $("check-count").textContent = "";
  verdict($("check-verdict"), "Trying …");
  const items = new Map();
  let count = 0;
  try {
    lastResult = await check(about, {
      leg: (leg) => showLeg(items, leg),
      candidate: (row) => {
        count += 1;
        $("check-count").textContent = `(${count})`;
        showCandidate(row);
      },
      done: showResult,
    });
    $("check-copy").disabled = false;
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
  item.append(element("span", "time", leg.time === undefined ? "" : `${Math.round(leg.time)} ms`));
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
  for (const text of [`${Math.round(row.time)} ms`, row.type, over, endpoint(row.address, row.port), row.leg.url]) {
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

$("check-start").addEventListener("click", runCheck);
$("check-copy").addEventListener("click", () => copy($("check-copy"), lastResult.text));

// Loopback

const FIGURES = {
  throughput: { least: 1, scale: (bits) => bits / 1e6, text: (bits) => rate(bits) },
  rtt: { least: 10, scale: (ms) => ms, text: (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms` },
  loss: { least: 2, scale: (percent) => percent, text: (percent) => `${percent.toFixed(1)} %` },
  jitter: { least: 5, scale: (ms) => ms, text: (ms) => `${ms.toFixed(1)} ms` },
};
let loopback = null;
let charts = null;

function rate(bits) {
  return bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1e3)} kbit/s`;
}

async function startLoopback() {
  charts ??= Object.fromEntries(
    Object.entries(FIGURES).map(([name, { least }]) => [name, new Chart($(`chart-${name}`), least)]),
  );
  Object.values(charts).forEach((chart) => chart.clear());
  const running = loopback = new Loopback((figures) => {
    for (const [name, { scale, text }] of Object.entries(FIGURES)) {
      const value = figures[name];
      charts[name].add(value === null ? null : scale(value));
      $(`value-${name}`).textContent = value === null ? "–" : text(value);
    }
  });
  $("loopback-start").textContent = "Stop";
  verdict($("loopback-state"), "Connecting …");
  try {
    const path = await running.start($("loopback-leg").value, Number($("loopback-load").value));
    if (loopback !== running) return;
    verdict($("loopback-state"), `✓ ${path}`, "good");
    const outside = await running.outside($("loopback-leg").value, about);
    if (loopback === running) showOutside(path, outside);
  } catch (error) {
    if (loopback !== running) return;
    stopLoopback();
    verdict($("loopback-state"), error.message, "bad");
  }
}

function showOutside(path, outside) {
  if (outside.state === "bad") verdict($("loopback-state"), `${path}, but between two clients of this server alone`, "bad");
  $("loopback-outside").textContent = outside.text;
  $("loopback-outside").className = outside.state === "bad" ? "note todo" : "note";
}

function stopLoopback() {
  $("loopback-outside").textContent = "";
  loopback?.stop();
  loopback = null;
  $("loopback-start").textContent = "Start";
  verdict($("loopback-state"), "");
}

$("loopback-start").addEventListener("click", () => (loopback ? stopLoopback() : startLoopback()));
for (const id of ["loopback-leg", "loopback-load"]) {
  $(id).addEventListener("change", () => { if (loopback) { stopLoopback(); startLoopback(); } });
}

// Call

let call = null;
let sent = null;

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

function showFigures(id, figures) {
  const place = $(`video-${id}`)?.querySelector("dl");
  if (!place) return;
  const rows = {
    "this side": figures.local ?? figures.state,
    "other side": figures.remote,
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
  $("call-policy").disabled = $("call-leg").disabled = false;
  verdict($("call-state"), "");
}

$("call-start").addEventListener("click", startCall);
$("call-leave").addEventListener("click", () => {
  endCall();
  history.replaceState(null, "", "#call");
  route();
});
$("call-source").addEventListener("change", async () => {
  if (!call) return;
  try {
    const next = await source($("call-source").value, securePage());
    await call.replace(next);
    endStream(sent);
    sent = next;
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

begin();
