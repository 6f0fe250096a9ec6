// The page: follows the stream, asks again when it breaks, and acts when a person decides.

import { Refused, act, follow, history, token } from "/page/api.js";
import { show, showConnection, showHistory, showStandby } from "/page/view.js";
import { duration, many } from "/page/words.js";

const AGAIN_MS = 2000;
const HISTORY_MS = 5000;

const byId = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
let lastSeen = null;
let status = null;

/** Opens a dialog; whether the person went on. */
function open(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true });
  });
}

async function askToken(why) {
  byId("token-why").textContent = why;
  byId("token").value = "";
  if (!(await open(byId("token-dialog")))) return false;
  token.set(byId("token").value);
  return true;
}

async function confirm(title, words, label, danger) {
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = words;
  byId("confirm-ok").textContent = label;
  byId("confirm-ok").className = danger ? "danger" : "main";
  return open(byId("confirm-dialog"));
}

let silence;
function say(words) {
  byId("said").textContent = words;
  byId("said").hidden = false;
  clearTimeout(silence);
  silence = setTimeout(() => { byId("said").hidden = true; }, 8000);
}

/** Acts with the token, and asks for it if it is missing or wrong. */
async function actWithToken(path, body) {
  let why = "Acting needs the token.";
  while (token.get() || (await askToken(why))) {
    try {
      return await act(path, body);
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 401) throw error;
      token.forget();
      why = "That was not the token.";
    }
  }
  return null;
}

const DECISIONS = {
  approve: {
    title: (bucket) => `Delete from the backup of ${bucket}?`,
    words: (objects) => `${many(objects, "object")} will be deleted from the target. If the source lost them by accident, the backup loses them too.`,
    label: "Delete them",
    done: (answer) => `${many(answer.approved, "delete")} approved.`,
  },
  discard: {
    title: (bucket) => `Keep these objects of ${bucket}?`,
    words: (objects) => `${many(objects, "object")} stay on the target although the source has them no more.`,
    label: "Keep them",
    done: (answer) => `${many(answer.discarded, "delete")} discarded.`,
  },
};

async function decide(verb, bucket) {
  const { title, words, label, done } = DECISIONS[verb];
  const objects = status.held.find((held) => held.bucket === bucket)?.count ?? 0;
  if (!(await confirm(title(bucket), words(objects), label, verb === "approve"))) return;
  const answer = await actWithToken(`/api/v1/deletes/${encodeURIComponent(bucket)}/${verb}`);
  if (answer) say(done(answer));
}

async function reconcileAll() {
  const answer = await actWithToken("/api/v1/reconcile", {});
  if (answer) say(`${many(answer.buckets, "bucket")} will be compared now.`);
}

const reported = (doing) => doing.catch((error) => say(error.message));

document.addEventListener("click", ({ target }) => {
  // Not a submit button: Enter in the field would press the first of those.
  if ("cancel" in target.dataset) target.closest("dialog").close("");
  const [verb, ...bucket] = target.dataset.act?.split(":") ?? [];
  if (verb in DECISIONS) reported(decide(verb, bucket.join(":")));
});
byId("reconcile-all").addEventListener("click", () => reported(reconcileAll()));

function seen(received) {
  status = received;
  lastSeen = Date.now();
  show(status, lastSeen);
  showConnection("live", "live");
}

/** Follows the stream for ever. */
async function watch() {
  for (;;) {
    try {
      await follow(seen);
    } catch (error) {
      if (error instanceof Refused && error.status === 401) {
        token.forget();
        await askToken("Reading this page needs the token.");
        continue;
      }
      if (error instanceof Refused && error.standby) {
        showStandby(error.standby);
        await pause(AGAIN_MS);
        continue;
      }
    }
    showConnection("lost", lastSeen
      ? `evermirror does not answer; this is ${duration(Date.now() - lastSeen)} old`
      : "evermirror does not answer");
    await pause(AGAIN_MS);
  }
}

async function watchHistory() {
  for (;;) {
    // When it fails, the stream fails too, and says so.
    await history().then(({ samples }) => showHistory(samples), () => {});
    await pause(HISTORY_MS);
  }
}

watch();
watchHistory();
