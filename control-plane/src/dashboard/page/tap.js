// Live tap: requests as they end. Lines of `/api/v1/tap`: an event, `{"lost": N}`, `{"sidecars": N}`, or `{"refused": why}`.

import { LoggedOut, Refused, lines } from "./api.js";
import { h } from "./dom.js";
import { ms, plural } from "./format.js";

const MOST_ROWS = 200;
/** However many come: so often they are drawn. */
const DRAW_MS = 100;
let running = null;

/** Ends what runs: the view is left. */
export function stopTap() {
  running?.abort();
  running = null;
}

/** Conditions, named as the API's parameters. */
const CONDITIONS = [
  ["to", "To", "orders or shop/orders"], ["from", "From", "web or shop/web"], ["status", "Status", "5xx or 404,500-503"], ["slower", "Slower than", "100ms"],
];
const COLUMNS = ["Time", "Seen by", "From", "To", "Method", "Asked for", "Status", "Took", "TLS", "Reason"];

export function tapView(onLoggedOut) {
  const note = h("p", { class: "sub", role: "status" }, "Not running.");
  const wrong = h("p", { class: "wrong", role: "alert" });
  const body = h("tbody", {});
  const feed = h("div", { class: "scroll", hidden: true }, h("table", { class: "feed" },
    h("thead", {}, h("tr", {}, COLUMNS.map((name) => h("th", { scope: "col" }, name)))), body));
  const button = h("button", { class: "first", "data-key": "tap" }, "Start");
  const fields = CONDITIONS.map(([name, , placeholder]) => h("input", { name, placeholder, autocomplete: "off", spellcheck: "false", maxlength: 256 }));
  const form = h("form", { class: "filter" }, CONDITIONS.map(([, title], index) => h("label", {}, title, fields[index])), button);
  const asked = () => new URLSearchParams(fields.filter((field) => field.value.trim()).map((field) => [field.name, field.value.trim()]));
  const ended = () => {
    button.textContent = "Start";
    for (const field of fields) field.disabled = false;
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return stopTap();
    const own = (running = new AbortController());
    button.textContent = "Stop";
    for (const field of fields) field.disabled = true;
    wrong.textContent = "";
    note.textContent = "Waiting for requests…";
    body.replaceChildren();
    feed.hidden = true;
    const told = { seen: 0, lost: 0, sidecars: null };
    const board = drawer(body, feed, note, told);
    try {
      for await (const line of lines(`/api/v1/tap?${asked()}`, own.signal)) {
        if (typeof line.lost === "number") told.lost += line.lost;
        else if (typeof line.sidecars === "number") told.sidecars = line.sidecars;
        else if (typeof line.refused === "string") wrong.textContent = `${line.workload} does not serve it: ${line.refused}.`;
        else board.take(line);
        board.soon();
      }
      board.end("The control plane ended it");
    } catch (error) {
      board.end(own.signal.aborted ? "Stopped" : error instanceof Refused ? "Not running" : "The control plane went away");
      if (error instanceof LoggedOut) onLoggedOut();
      else if (error instanceof Refused) wrong.textContent = `${error.message}.`;
    }
    if (running === own) running = null;
    if (!running) ended();
  });
  return [
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "Live tap"), note)), form, wrong,
    h("p", { class: "sub" }, "Requests as they end, without queries, headers or bodies; each is seen by the sidecar of its caller and by that of its callee. It runs while this view is open."), feed,
  ];
}

/** Draws what has come, a few times a second at most. */
function drawer(body, feed, note, told) {
  let waiting = [];
  let timer = 0;
  const say = (first) => {
    const parts = [first, told.sidecars !== null && plural(told.sidecars, "sidecar"), told.seen > 0 && `${told.seen} seen`,
      told.seen > MOST_ROWS && `the newest ${MOST_ROWS} are shown`, told.lost > 0 && `${plural(told.lost, "event")} lost`];
    note.textContent = `${parts.filter(Boolean).join(" · ")}.`;
  };
  const draw = () => {
    timer = 0;
    body.prepend(...waiting.reverse().map(row));
    waiting = [];
    while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
    feed.hidden = body.rows.length === 0;
    say(told.seen ? "Running" : "Waiting for requests");
  };
  return {
    take(event) {
      told.seen += 1;
      waiting.push(event);
      if (waiting.length > MOST_ROWS) waiting.shift();
    },
    soon() { timer ||= setTimeout(draw, DRAW_MS); },
    end(first) {
      clearTimeout(timer);
      draw();
      say(first);
    },
  };
}

/** `shop/web` of `spiffe://cluster.local/ns/shop/sa/web`. */
const account = (peer) => peer.replace(/^spiffe:\/\/[^/]*\/ns\/([^/]+)\/sa\//, "$1/");

function row(event) {
  const outbound = event.direction === "outbound";
  const from = outbound ? event.workload : account(event.peer) || event.downstream_remote_address;
  const to = outbound ? event.destination || account(event.peer) || event.upstream_host : event.workload;
  const state = event.response_code >= 500 || event.reason ? "bad" : event.response_code >= 400 ? "warn" : "";
  const cells = [
    new Date(event.time_ms).toLocaleTimeString(), outbound ? "caller" : "callee", from, to, event.method, `${event.authority}${event.path}`,
    event.response_code || "–", ms(event.duration_ms), event.tls === "mutual" ? "mutual" : "–", [event.reason, event.response_flags].filter(Boolean).join(" "),
  ];
  return h("tr", {}, cells.map((text, index) => {
    const cell = h("td", { class: COLUMNS[index] === "Status" || COLUMNS[index] === "Reason" ? state : null });
    cell.textContent = String(text);
    return cell;
  }));
}
