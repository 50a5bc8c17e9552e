// The tab that relays packets to itself: a test of one way in or of all, its charts, and a summary.

import { Chart } from "./chart.js";
import { Loopback } from "./loopback.js";
import { $, element, rate, verdict } from "./page.js";
import { enoughFor, summary } from "./quality.js";

const FIGURES = {
  throughput: { least: 1, scale: (bits) => bits / 1e6, text: (bits) => rate(bits) },
  rtt: { least: 10, scale: (ms) => ms, text: (ms) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms` },
  loss: { least: 2, scale: (percent) => percent, text: (percent) => `${percent.toFixed(1)} %` },
  jitter: { least: 5, scale: (ms) => ms, text: (ms) => `${ms.toFixed(1)} ms` },
};
let loopback = null;
let charts = null;
let about = null;

async function startLoopback() {
  charts ??= Object.fromEntries(
    Object.entries(FIGURES).map(([name, { least }]) => [name, new Chart($(`chart-${name}`), least)]),
  );
  Object.values(charts).forEach((chart) => chart.clear());
  const samples = [];
  const began = performance.now();
  const leg = $("loopback-leg").value, load = Number($("loopback-load").value);
  const running = loopback = new Loopback((figures) => {
    samples.push(figures);
    running.summary = { leg, load, ...summary(samples.slice(1), (performance.now() - began) / 1000) };
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

/** A line for each way in, of the last test of it. */
function showSummary({ leg, load, throughput, rtt, late, loss, jitter, opinion: score }) {
  const use = enoughFor({ throughput, loss, opinion: score, load });
  const text = (value, unit) => (value === null ? "–" : `${value.toFixed(1)} ${unit}`);
  const row = element("tr");
  row.dataset.leg = leg;
  const cells = [
    $("loopback-leg").querySelector(`option[value="${leg}"]`)?.textContent ?? leg, rate(throughput),
    `${text(rtt, "ms")} (${text(late, "ms")})`, text(loss, "%"), text(jitter, "ms"),
    score === null ? "–" : score.toFixed(2), use.limited ? `${use.name}, at the load that was sent` : use.name,
  ];
  row.append(...cells.map((each) => element("td", "", each)));
  $("loopback-rows").querySelector(`tr[data-leg="${leg}"]`)?.remove();
  $("loopback-rows").append(row);
  $("loopback-summary").hidden = false;
}

const ALL_SECONDS = 6;

async function testEveryWay() {
  $("loopback-all").disabled = true;
  const ways = [...$("loopback-leg").options].map(({ value }) => value).filter((value) => value !== "any");
  for (const way of ways) {
    if (loopback) stopLoopback();
    $("loopback-leg").value = way;
    await startLoopback();
    const running = loopback;
    if (!running) continue;
    await new Promise((resolve) => setTimeout(resolve, ALL_SECONDS * 1000));
    if (loopback !== running) break;   // the user has stopped it
  }
  if (loopback) stopLoopback();
  $("loopback-all").disabled = false;
}

function stopLoopback() {
  if (loopback?.summary?.rtt != null) showSummary(loopback.summary);
  $("loopback-outside").textContent = "";
  loopback?.stop();
  loopback = null;
  $("loopback-start").textContent = "Start";
  verdict($("loopback-state"), "");
}

/** told: what the server says of itself, page.json. */
export function begin(told) {
  about = told;
}

$("loopback-start").addEventListener("click", () => (loopback ? stopLoopback() : startLoopback()));
$("loopback-all").addEventListener("click", testEveryWay);
for (const id of ["loopback-leg", "loopback-load"]) {
  $(id).addEventListener("change", () => { if (loopback) { stopLoopback(); startLoopback(); } });
}
