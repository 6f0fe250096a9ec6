// Puts a status on the page. Everything is set as text, never as markup.

import { draw } from "/page/chart.js";
import { activity, ago, bytes, bytesAtRisk, count, duration, heldBecause, lastComparison, many, problems, safeguards, verdict, visible } from "/page/words.js";

const byId = (id) => document.getElementById(id);

/** Sets text only where it changed, so that a screen reader is not told the same again. */
function text(id, said) {
  const element = byId(id);
  const value = visible(said);
  if (element.textContent !== value) element.textContent = value;
}

const shown = new Map();

/**
 * Fills a table body or list. A row is an array of cells: a string, `{ text, class, state }` or
 * `{ buttons }`. Rows are only made again when they changed, and the focus stays where it was.
 */
function rows(id, list) {
  const now = JSON.stringify(list);
  if (shown.get(id) === now) return;
  shown.set(id, now);
  const focused = document.activeElement?.dataset?.act;
  // On a narrow screen each cell stands on a line of its own, behind the title of its column.
  const titles = [...byId(id).closest("table").querySelectorAll("th")].map((title) => title.textContent);
  byId(id).replaceChildren(...list.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map(cell));
    titles.forEach((title, at) => { row.cells[at].dataset.title = title; });
    return row;
  }));
  if (focused) [...byId(id).querySelectorAll("button")].find((button) => button.dataset.act === focused)?.focus();
}

function cell(content) {
  const made = document.createElement("td");
  if (typeof content === "string") {
    made.textContent = visible(content);
  } else if (content.buttons) {
    const buttons = document.createElement("div");
    buttons.className = "buttons";
    buttons.append(...content.buttons.map(button));
    made.append(buttons);
  } else {
    made.textContent = visible(content.text);
    if (content.class) made.className = content.class;
    if (content.state) made.dataset.state = content.state;
  }
  return made;
}

/** `act` is what main.js acts upon. */
function button({ label, act, about }) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.dataset.act = act;
  made.setAttribute("aria-label", `${label}: ${about}`);
  return made;
}

const number = (value) => ({ text: typeof value === "number" ? count(value) : value, class: "number" });

function answer(status, now) {
  const { state, answer: words, why } = verdict(status);
  byId("answer").dataset.state = state;
  // The age grows every second; only what it means is announced.
  byId("verdict").setAttribute("aria-live", words.startsWith("The last") ? "off" : "polite");
  text("verdict", words);
  text("because", why);
  const age = status.at_risk.oldest_pending_age_ms;
  text("oldest", age === null || age === undefined ? "none" : duration(age));
  text("waiting", count(status.keys.pending));
  text("bytes", bytesAtRisk(status.at_risk));
  text("compared", ago(lastComparison(status), now));
  text("lag", status.lag.count === 0 ? "–" : `${duration(status.lag.p50_ms)} · ${duration(status.lag.p99_ms)}`);
}

function trouble(status) {
  const found = problems(status);
  byId("trouble").hidden = found.length === 0;
  const now = JSON.stringify(found.map(({ text: words }) => words.replace(/\d+/g, "")));
  const items = byId("problems");
  if (shown.get("problems") !== now) {
    shown.set("problems", now);
    items.replaceChildren(...found.map(() => document.createElement("li")));
  }
  found.forEach(({ state, text: words }, at) => {
    items.children[at].dataset.state = state;
    items.children[at].textContent = visible(words);
  });
}

function deletes(status) {
  byId("held-section").hidden = status.held.length === 0;
  rows("held", status.held.map(({ bucket, count: objects, reason, deciding }) => [
    { text: bucket, class: "name" },
    number(objects),
    heldBecause({ reason, deciding }),
    { buttons: [
      { label: "Discard", act: `discard:${bucket}`, about: `keep ${many(objects, "object")} of ${bucket} on the target` },
      { label: "Approve", act: `approve:${bucket}`, about: `delete ${many(objects, "object")} of ${bucket} from the target` },
    ] },
  ]));
}

function parked(status) {
  byId("parked-section").hidden = status.keys.parked === 0;
  const more = status.keys.parked - status.parked.length;
  text("parked-more", more > 0 ? `${count(status.parked.length)} of ${count(status.keys.parked)} are shown.` : "");
  rows("parked", status.parked.map((key) => [
    { text: key.bucket, class: "name" },
    { text: key.key, class: "key" },
    key.reason,
    number(key.attempts),
    number(duration(Math.round(key.next_try_in_ms / 1000) * 1000)),
  ]));
}

function buckets(status, now) {
  const delayed = new Map(status.delayed.map((bucket) => [bucket.bucket, bucket.count]));
  const waiting = new Map(status.buckets.map((bucket) => [bucket.bucket, bucket]));
  rows("buckets", status.reconcile.map((bucket) => {
    const mine = waiting.get(bucket.bucket);
    const later = delayed.get(bucket.bucket);
    const doing = [activity(bucket), later ? `${many(later, "delete")} delayed` : ""].filter(Boolean).join("; ");
    const compared = bucket.last_complete_ms ?? null;
    return [
      { text: bucket.bucket, class: "name" },
      number(compared === null ? "–" : bucket.source_objects),
      number(compared === null ? "–" : bucket.target_objects),
      number(mine ? `${many(mine.pending, "key")}, ${bytesAtRisk(mine)}` : "–"),
      ago(compared === null ? null : Math.min(compared, now), now),
      { text: doing, class: "doing", state: bucket.last_error && !bucket.running ? "bad" : undefined },
    ];
  }));
}

const part = (name) => ({ text: name, class: "part" });

/** Whether notifications arrive, and when the last one did. */
function intake({ name, address, trouble: why, last_event_ms: last }, now) {
  const heard = last === null ? "no event yet" : `last event ${ago(Math.min(last, now), now)}`;
  return [part(name), address, { text: `${why ? "in trouble" : "open"}, ${heard}`, state: why ? "bad" : "good" }];
}

function stores(status, now) {
  const store = (name, { endpoint, up, for_ms: since }) => [
    part(name),
    endpoint,
    { text: `${up ? "up" : "down"} for ${duration(since)}`, state: up ? "good" : "bad" },
  ];
  rows("stores", [
    store("source", status.source),
    store("target", status.target),
    ...status.intakes.map((each) => intake(each, now)),
    ...safeguards(status, now).map(({ name, where, state, text: words }) => [part(name), where, { text: words, state }]),
  ]);
}

function totals(status) {
  const { copied, deleted, tagged, unchanged, kept, bytes: size, errors } = status.replicated;
  rows("totals", [
    ["Objects copied", number(`${count(copied)} (${bytes(size)})`)],
    ["Deleted on the target", number(deleted)],
    ["Tags written", number(tagged)],
    ["Agreed already", number(unchanged)],
    ["Deletes that an archive ignored", number(kept)],
    ["Journal on disk", number(`${bytes(status.journal.bytes)} of ${bytes(status.journal.max_bytes)}`)],
    ["Copies at once", number(`${status.concurrency.in_use} of ${status.concurrency.limit}`)],
    ...errors.map((error) => [`Errors: ${error.stage}, ${error.class}`, number(error.count)]),
  ]);
}

/** Shows a status. */
export function show(status, now) {
  text("route", `${status.source.endpoint} → ${status.target.endpoint}`);
  text("version", `evermirror ${status.version}, up ${duration(status.uptime_s * 1000)}`);
  document.title = `${verdict(status).answer} – evermirror`;
  answer(status, now);
  trouble(status);
  deletes(status);
  parked(status);
  buckets(status, now);
  stores(status, now);
  totals(status);
  byId("main").dataset.state = "active";
}

/** Shows that this process waits, and for whom. */
export function showStandby(reason) {
  byId("main").dataset.state = "standby";
  document.title = "Standby – evermirror";
  showConnection("live", "live");
  byId("answer").dataset.state = "unknown";
  text("verdict", "Ask the active process");
  text("because", `This one is a standby: it copies nothing until it is its turn. Now ${reason}.`);
}

let lastHour = [];
// A chart has as many units as its place has pixels.
new ResizeObserver(() => showHistory(lastHour)).observe(document.querySelector(".charts"));

/** Draws the last hour. */
export function showHistory(samples) {
  lastHour = samples;
  const times = samples.map((sample) => sample.at_ms);
  const rate = samples.map((sample, at) => {
    const before = samples[at - 1];
    return before ? ((sample.done - before.done) * 1000) / (sample.at_ms - before.at_ms) : null;
  });
  // Where nothing was copied there was no lag: the figures are still those of earlier events.
  const lag = (field) => samples.map((sample, at) => (rate[at] > 0 ? sample[field] : null));
  draw(byId("lag-chart"), times, [lag("lag_p50_ms"), lag("lag_p99_ms")], duration);
  draw(byId("rate-chart"), times, [rate], (value) => count(Math.round(value * 10) / 10));
  draw(byId("waiting-chart"), times, [samples.map((sample) => sample.pending)], count);
  draw(byId("bytes-chart"), times, [samples.map((sample) => sample.pending_bytes)], bytes, 1024);
  const latest = samples.at(-1);
  if (!latest) return;
  const [median, most] = [duration(latest.lag_p50_ms), duration(latest.lag_p99_ms)];
  text("lag-now", latest.lag_p99_ms === 0 ? "" : `${median}, 99 % ${most} (dashed)`);
  text("rate-now", rate.at(-1) === null ? "" : count(Math.round(rate.at(-1) * 10) / 10));
  text("waiting-now", count(latest.pending));
  text("bytes-now", bytes(latest.pending_bytes));
  byId("bytes-chart").setAttribute("aria-label", `Bytes waiting: ${bytes(latest.pending_bytes)} now`);
  byId("lag-chart").setAttribute("aria-label", `Lag of the last events: median ${median}, 99 % ${most}`);
  byId("rate-chart").setAttribute("aria-label", `Objects a second: ${byId("rate-now").textContent} now`);
  byId("waiting-chart").setAttribute("aria-label", `Keys waiting: ${count(latest.pending)} now`);
}

/** Whether what is shown is of this moment. */
export function showConnection(state, words) {
  byId("connection").dataset.state = state;
  text("connection", words);
}
