// What the numbers mean, in words. Pure functions of the status; no page, no clock of their own.

const UNITS = [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000]];

/** "3 h 12 min", "4.2 s", "18 ms". */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10000) return `${(ms / 1000).toFixed(1)} s`;
  const at = UNITS.findIndex(([, size]) => ms >= size);
  const [unit, size] = UNITS[at];
  const whole = Math.floor(ms / size);
  const next = UNITS[at + 1];
  const rest = next ? Math.floor((ms % size) / next[1]) : 0;
  return rest > 0 ? `${whole} ${unit} ${rest} ${next[0]}` : `${whole} ${unit}`;
}

/** "12,345". */
export const count = (number) => number.toLocaleString("en-US");

/** "1 key", "2 keys". */
export const many = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** "1.5 GiB". */
export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let at = 0;
  for (; number >= 1024 && at < units.length - 1; at += 1) number /= 1024;
  return `${at === 0 ? number : number.toFixed(1)} ${units[at]}`;
}

/** Keys are other people's text: what has no shape of its own, or turns the writing around, as its number. */
export const visible = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (found) => `\\u{${found.codePointAt(0).toString(16)}}`);

/** "12 min ago", or "never". */
export const ago = (thenMs, nowMs) =>
  thenMs === null || thenMs === undefined ? "never" : `${duration(Math.max(0, nowMs - thenMs))} ago`;

/** When the bucket that has waited longest was last compared whole; null if one never was. */
export function lastComparison(status) {
  const times = status.reconcile.map((bucket) => bucket.last_complete_ms ?? null);
  return times.length === 0 || times.includes(null) ? null : Math.min(...times);
}

/** The bytes that a loss would cost, as far as they are known: events and listings tell sizes, not always. */
export function bytesAtRisk({ bytes: known, unsized_keys: unsized }) {
  if (unsized === 0) return bytes(known);
  return known === 0 ? "size unknown" : `at least ${bytes(known)}`;
}

/** The answer to the one question: how bad, in a few words, and why. */
export function verdict(status) {
  const { keys, buckets_in_doubt: doubt, oldest_pending_age_ms: age } = status.at_risk;
  if (status.journal.failed) {
    return { state: "bad", answer: "Unknown", why: `The journal failed, and nothing more is taken: ${status.journal.failed}` };
  }
  const doubts = doubt > 0 ? `${many(doubt, "bucket")} may differ in ways no notification told of, until compared.` : "";
  if (keys === 0) {
    if (doubt > 0) return { state: "warn", answer: "Nothing known of", why: doubts };
    if (lastComparison(status) === null) {
      return { state: "warn", answer: "Nothing known of", why: "Not every bucket has been compared whole yet." };
    }
    return { state: "good", answer: "Nothing", why: "Every change that the source told of is on the target." };
  }
  const old = age ?? 0;
  const state = old < 60000 && status.target.up ? "good" : old < 900000 ? "warn" : "bad";
  const answer = age === null || age === undefined ? many(keys, "key") : `The last ${duration(age)}`;
  return { state: doubt > 0 && state === "good" ? "warn" : state, answer, why: `Changes to ${many(keys, "key")} (${bytesAtRisk(status.at_risk)}) are not on the target yet. ${doubts}` };
}

/** What an operator should look at, the worst first. */
export function problems(status) {
  const found = [];
  const bad = (text) => found.push({ state: "bad", text });
  const warn = (text) => found.push({ state: "warn", text });
  if (status.journal.failed) bad(`The journal failed: ${status.journal.failed}`);
  if (status.journal.full) bad("The journal is full, so notifications are refused; their buckets will be compared.");
  for (const [name, store] of [["source", status.source], ["target", status.target]]) {
    if (!store.up) bad(`The ${name} has not answered for ${duration(store.for_ms)}: ${store.last_error ?? "no reason given"}`);
  }
  for (const intake of status.intakes) {
    if (intake.trouble) bad(`No notification arrives by ${intake.name} (${intake.address}): ${intake.trouble}`);
  }
  for (const bucket of status.buckets) {
    if (bucket.unhealthy) warn(`Bucket ${bucket.bucket} fails as a whole, so its keys are tried one at a time: ${bucket.unhealthy}`);
  }
  for (const bucket of status.reconcile) {
    if (bucket.last_error) warn(`The last comparison of ${bucket.bucket} failed: ${bucket.last_error}`);
  }
  for (const gap of status.gaps) {
    warn(`Events of ${gap.bucket} may have been missed (${gap.reason.replaceAll("_", " ")}); it will be compared.`);
  }
  const damaged = status.journal.damaged_segments;
  if (damaged > 0) warn(`${many(damaged, "damaged file")} of the journal or of what it set aside ${damaged === 1 ? "was" : "were"} kept in data_dir to be examined: check the disk, then remove *.damaged.`);
  if (status.capture?.last_error) warn(`The source's settings could not all be captured: ${status.capture.last_error}`);
  if (status.snapshots?.last_error) warn(`No volume snapshot could be taken: ${status.snapshots.last_error}`);
  if (status.stopping) warn("evermirror is stopping.");
  return found;
}

/** What else stands between the store and a loss: the lease, the snapshots, the captured settings. */
export function safeguards({ lease, snapshots, capture }, now) {
  const found = [];
  if (lease) {
    found.push({ name: "lease", where: `${lease.name}, held by ${lease.holder}`, state: "good", text: `active for ${duration(Math.max(0, now - lease.since_ms))}` });
  }
  const repeated = (name, done, last, { interval_ms: interval, failures, last_error: error }) => {
    const late = last === null || now - last > 3 * interval;
    const failed = failures > 0 ? `, ${many(failures, "failure")} since the start` : "";
    const state = error ? "bad" : late ? "warn" : "good";
    found.push({ name, where: `every ${duration(interval)}`, state, text: `${done} ${ago(last, now)}${failed}` });
  };
  if (snapshots) repeated("snapshots", "taken", snapshots.last_ms, snapshots);
  if (capture) repeated("settings", "captured", capture.checked_ms, capture);
  return found;
}

/** Why a bucket's deletes are held, and how far a decision about them is. */
export function heldBecause({ reason, deciding }) {
  if (!deciding) return reason;
  return `${reason} – ${deciding.decision === "approve" ? "approving" : "discarding"}: ${count(deciding.done)} of ${count(deciding.of)}`;
}

/** What a bucket's comparison is doing. */
export function activity(bucket) {
  if (!bucket.running) return bucket.last_error ? "failed" : "";
  const drift = Object.values(bucket.drift).reduce((sum, number) => sum + number, 0);
  const where = bucket.prefix ? ` below ${bucket.prefix}` : "";
  return `comparing${where}: ${many(bucket.keys_compared, "key")}, ${many(drift, "difference")}`;
}
