// Live tap: requests as they end, as far as the control plane can ask for them.

import { LoggedOut, Refused, lines } from "./api.js";
import { empty, h } from "./dom.js";
import { ms } from "./format.js";

const MOST_ROWS = 200;
let running = null;

/** Ends what runs: the view is left. */
export function stopTap() {
  running?.abort();
  running = null;
}

export function tapView(onLoggedOut) {
  const note = h("p", { class: "sub", role: "status" }, "Not running.");
  const body = h("tbody", {});
  const columns = ["Time", "From", "To", "Method", "Path", "Status", "Took", "Reason"];
  const feed = h("div", { class: "scroll", hidden: true }, h("table", { class: "feed" },
    h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))), body));
  const place = h("div", {});
  const button = h("button", { class: "first", type: "button", "data-key": "tap" }, "Start");
  button.addEventListener("click", async () => {
    if (running) return stopTap();
    const own = (running = new AbortController());
    button.textContent = "Stop";
    note.textContent = "Waiting for requests…";
    place.replaceChildren();
    try {
      let seen = 0;
      for await (const event of lines("/api/v1/tap", own.signal)) {
        seen += 1;
        feed.hidden = false;
        note.textContent = `${seen} seen; the newest ${MOST_ROWS} are shown.`;
        body.prepend(row(event));
        while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
      }
      note.textContent = "The control plane ended it.";
    } catch (error) {
      if (error instanceof LoggedOut) onLoggedOut();
      else if (error instanceof Refused) {
        note.textContent = "Not available.";
        place.replaceChildren(empty("This control plane cannot tap", `It says: ${error.message}. From a terminal, next to a workload, the sidecar's access log shows the same.`));
      } else note.textContent = own.signal.aborted ? "Stopped." : "The control plane went away.";
    }
    if (running === own) running = null;
    button.textContent = "Start";
  });
  return [
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "Live tap"), note), h("div", { class: "tools" }, button)),
    h("p", { class: "sub" }, "Requests as they end, without queries, headers or bodies. It runs while this view is open."), place, feed,
  ];
}

function row(event) {
  const first = (...names) => names.map((name) => event[name]).find((value) => value !== undefined && value !== null && value !== "") ?? "";
  const at = first("time_ms");
  const cells = [
    at ? new Date(Number(at)).toLocaleTimeString() : first("time", "start_time"), first("source", "workload", "from", "peer"), first("destination", "to", "upstream_cluster"),
    first("method"), first("path"), first("response_code", "status"), typeof event.duration_ms === "number" ? ms(event.duration_ms) : "", first("reason", "response_flags"),
  ];
  return h("tr", {}, cells.map((text) => h("td", {}, String(text))));
}
