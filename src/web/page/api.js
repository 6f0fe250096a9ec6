// Talks to evermirror: reads the stream of states, and acts on a person's behalf.

const KEPT = "evermirror-token";
/** A stream that says nothing for so long is dead; it should speak every second. */
const SILENCE_MS = 10000;

/** The token, kept for as long as this tab is open. */
export const token = {
  get: () => sessionStorage.getItem(KEPT),
  set: (value) => sessionStorage.setItem(KEPT, value),
  forget: () => sessionStorage.removeItem(KEPT),
};

/** An answer other than 2xx; `standby` says for what a process waits that is not the active one. */
export class Refused extends Error {
  constructor(status, message, standby) {
    super(message);
    this.status = status;
    this.standby = standby;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store" });
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, body.error ?? `${path} answered ${answer.status}`, body.standby);
}

/** The samples of the last hour. */
export const history = async () => (await ask("/api/v1/history")).json();

/** POSTs; returns what was answered. */
export async function act(path, body) {
  const options = { method: "POST" };
  if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "content-type": "application/json" } });
  return (await ask(path, options)).json();
}

/** Calls `seen` with every status until the stream ends; not EventSource, which can send no token. */
export async function follow(seen) {
  const stream = new AbortController();
  let silence = setTimeout(() => stream.abort(), SILENCE_MS);
  try {
    const answer = await ask("/api/v1/stream", { signal: stream.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => stream.abort(), SILENCE_MS);
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data:"));
        if (data.length > 0) seen(JSON.parse(data.map((line) => line.slice(5)).join("\n")));
      }
    }
  } finally {
    clearTimeout(silence);
  }
}
