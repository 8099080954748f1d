// What goes to the server and comes from it. Paths are relative, so that the page also works behind a proxy's prefix.

const SECRET = "nla-secret";

/** The server's refusal, in its own words. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const keepSecret = (secret) => sessionStorage.setItem(SECRET, secret);

const headers = () => {
  const secret = sessionStorage.getItem(SECRET);
  return {
    "Content-Type": "application/json",
    Accept: "application/json, text/event-stream",
    ...(secret ? { "X-SECRET-KEY": secret } : {}),
  };
};

const sentence = (body, response) => {
  const found = body?.detail ?? body?.error?.message ?? body?.error ?? body?.message;
  if (typeof found === "string" && found) return found;
  if (Array.isArray(found) && found[0]?.msg) return found[0].msg;
  return `the server answered ${response.status} ${response.statusText}`.trim();
};

const ask = async (path, options) => {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "the server does not answer: is it still running?");
  }
  if (response.ok) return response;
  throw new Refusal(response.status, sentence(await response.json().catch(() => null), response));
};

export const status = async () => (await ask("./", {})).json();

export const post = async (path, body, signal) =>
  (await ask(path, { method: "POST", body: JSON.stringify(body), signal })).json();

/** Calls `onFrame` with every frame of a stream of server-sent events, until its end or `[DONE]`. */
export const stream = async (path, body, onFrame, signal) => {
  const response = await ask(path, { method: "POST", body: JSON.stringify({ ...body, stream: true }), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError"
        ? error
        : new Refusal(0, "the connection broke before the answer was whole: is the server still running?");
    });
    rest += (value ?? "").replaceAll("\r", "");
    const frames = rest.split("\n\n");
    rest = done ? "" : frames.pop();
    for (const frame of frames) {
      const data = frame
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart())
        .join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const parsed = JSON.parse(data);
      if (parsed.error) throw new Refusal(parsed.status ?? 500, sentence(parsed, response));
      onFrame(parsed);
    }
    if (done) throw new Refusal(0, "the answer ended before it was whole: try again");
  }
};
