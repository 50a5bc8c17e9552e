// What figures of a path mean for people: a score for speech, and what the path is enough for. Pure.

const CODING = 20;      // ms that a packet of speech is made of
const DELAY_KNEE = 177.3;
const ROBUSTNESS = 25.1;  // Bpl of ITU-T G.113 for a codec that conceals losses

/**
 * Mean opinion score of speech, 1 to 4.4, by the E-model (ITU-T G.107) with everything at its default but delay and loss.
 * rtt and jitter in ms, loss in percent; null where one is not known.
 */
export function opinion({ rtt, jitter, loss }) {
  if (rtt === null || loss === null) return null;
  const delay = rtt / 2 + 2 * (jitter ?? 0) + CODING;
  const impairment = 0.024 * delay + (delay > DELAY_KNEE ? 0.11 * (delay - DELAY_KNEE) : 0);
  const rating = 93.2 - impairment - (95 * loss) / (loss + ROBUSTNESS);
  if (rating <= 0) return 1;
  return 1 + 0.035 * rating + rating * (rating - 60) * (100 - rating) * 7e-6;
}

const NEEDS = [
  { name: "4K video", bits: 15e6, loss: 1, opinion: 3.6 },
  { name: "HD video (1080p)", bits: 4e6, loss: 2, opinion: 3.6 },
  { name: "a video call (720p)", bits: 2e6, loss: 3, opinion: 3.6 },
  { name: "a small video call (360p)", bits: 0.6e6, loss: 5, opinion: 3.1 },
  { name: "speech", bits: 0.05e6, loss: 10, opinion: 2.6 },
];

/** The most demanding use that a path carries, as {name, limited}; limited: the load that was sent, and no more, has passed. */
export function enoughFor({ throughput, loss, opinion: score, load }) {
  if (score === null) return { name: "nothing", limited: false };
  const found = NEEDS.find((need) => throughput >= need.bits && loss <= need.loss && score >= need.opinion);
  return { name: found?.name ?? "nothing", limited: load > 0 && throughput >= 0.9 * load };
}

/** {seconds, throughput, rtt, late, loss, jitter, opinion} of samples as Loopback gives them; rtt the median, late 95 %. */
export function summary(samples, seconds) {
  const known = (name) => samples.map((each) => each[name]).filter((value) => value !== null && value !== undefined);
  const mean = (values) => (values.length ? values.reduce((sum, each) => sum + each, 0) / values.length : null);
  const rtts = known("rtt").sort((one, other) => one - other);
  const at = (share) => (rtts.length ? rtts[Math.min(rtts.length - 1, Math.floor(rtts.length * share))] : null);
  const found = {
    seconds, throughput: mean(known("throughput")) ?? 0, rtt: at(0.5), late: at(0.95),
    loss: mean(known("loss")), jitter: mean(known("jitter")),
  };
  return { ...found, opinion: opinion(found) };
}
