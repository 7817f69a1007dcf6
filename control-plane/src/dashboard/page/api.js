// Talks to the control plane: this origin only.

/** The session is over, or there never was one. */
export class LoggedOut extends Error {}
/** The control plane answered, but not with what was asked for. */
export class Refused extends Error {}

const DEADLINE_MS = 8000;

export async function get(path) {
  const response = await fetch(path, { credentials: "same-origin", signal: AbortSignal.timeout(DEADLINE_MS) });
  if (response.status === 401 || response.status === 429) throw new LoggedOut((await response.json()).error);
  if (!response.ok) throw new Refused((await response.json().catch(() => ({}))).error ?? `status ${response.status}`);
  return response.json();
}

async function post(path, body) {
  const headers = { "content-type": "application/json" };
  const response = await fetch(path, { method: "POST", credentials: "same-origin", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Refused((await response.json().catch(() => ({}))).error ?? `status ${response.status}`);
}

export const logIn = (token) => post("/api/v1/login", { token });
export const logOut = () => post("/api/v1/logout", {});

/** The token of the address, once: it is taken off it at once. */
export function tokenOfAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", `${location.pathname}#/`);
  return token;
}

/** Lines of JSON as they come, until `signal` aborts. */
export async function* lines(path, signal) {
  const response = await fetch(path, { credentials: "same-origin", signal });
  if (response.status === 401) throw new LoggedOut();
  if (!response.ok) throw new Refused((await response.json().catch(() => ({}))).error ?? `status ${response.status}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) if (part.trim()) yield JSON.parse(part);
  }
}
