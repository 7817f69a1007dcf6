// The page of a node: its traffic over time, who calls it and whom it calls, its endpoints and their breakers.

import { chart } from "./chart.js";
import { empty, h } from "./dom.js";
import { age, health, ms, percent, rate } from "./format.js";
import { table } from "./graph.js";

export function nodeView(id, graph, detail, tools) {
  const node = graph.nodes.find((one) => one.id === id);
  const name = node?.name ?? id.split("/").slice(2).join("/");
  const kind = { service: "Service", workload: "Workload", client: "Client without a sidecar", external: "Outside the mesh" }[node?.kind] ?? "";
  const head = h("div", { class: "head" },
    h("div", {}, h("p", { class: "sub" }, h("a", { href: "#/" }, "Graph"), " / ", node?.namespace || kind), h("h1", {}, name), h("p", { class: "sub" }, kind)),
    h("div", { class: "tools" }, tools));
  if (!node && !detail.inbound.length && !detail.outbound.length) {
    return [head, empty("Not here", "Nothing of this name takes part now. It may have left, or have been quiet for a quarter of an hour.")];
  }
  const incoming = graph.edges.filter((edge) => edge.to === id);
  const outgoing = graph.edges.filter((edge) => edge.from === id);
  const said = detail.inbound.some((slot) => slot.requests_per_second || slot.tcp_bytes_per_second) || incoming.length ? "inbound" : "outbound";
  return [
    head,
    facts(said === "inbound" ? incoming : outgoing, said),
    h("h2", {}, said === "inbound" ? "Requests to it" : "Requests from it"),
    charts(detail, detail[said]),
    h("div", { class: "two" },
      incoming.length > 0 && h("section", {}, h("h2", {}, "Callers"), table({ edges: incoming }, "to")),
      outgoing.length > 0 && h("section", {}, h("h2", {}, "Calls"), table({ edges: outgoing }, "from"))),
    endpoints(detail.endpoints),
    workloads(node, graph.at),
  ];
}

function facts(edges, side) {
  const requests = edges.reduce((sum, edge) => sum + edge.requests_per_second, 0);
  const judged = edges.filter((edge) => edge.success_rate !== null);
  const weight = judged.reduce((sum, edge) => sum + edge.requests, 0);
  const success = weight ? judged.reduce((sum, edge) => sum + edge.success_rate * edge.requests, 0) / weight : null;
  const slowest = edges.map((edge) => edge.p99_ms).filter((value) => value !== null);
  const fact = (title, value, unit, state) => h("div", { class: state }, h("dt", {}, title), h("dd", {}, value, unit && h("small", {}, ` ${unit}`)));
  return h("dl", { class: "facts" },
    fact("Requests", rate(requests), "per second"),
    fact("Success", percent(success), "", success === null ? "" : health({ success_rate: success })),
    fact("Slowest edge, p99", ms(slowest.length ? Math.max(...slowest) : null)),
    fact(side === "inbound" ? "Callers" : "Called", edges.length));
}

function charts(detail, slots) {
  const common = { times: slots.map((slot) => slot.at), slot: detail.slot_seconds, now: detail.at, window: detail.window };
  const of = (field) => slots.map((slot) => slot[field]);
  const success = of("success_rate");
  const lowest = Math.min(1, ...success.filter((value) => value !== null));
  const all = [
    chart({ ...common, title: "Requests per second", lines: [{ name: "rate", values: of("requests_per_second") }], format: rate }),
    chart({ ...common, title: "Success", lines: [{ name: "success", values: success }], format: percent, top: 1, floor: lowest > 0.9 ? 0.9 : lowest > 0.5 ? 0.5 : 0 }),
    chart({ ...common, title: "Latency", lines: ["p50", "p95", "p99"].map((name) => ({ name, values: of(`${name}_ms`) })), format: ms }),
  ];
  if (slots.some((slot) => slot.tcp_bytes_per_second > 0)) {
    const kilo = (value) => (value === null || value === undefined ? "–" : `${(value / 1000).toFixed(value < 10_000 ? 1 : 0)} kB/s`);
    all.push(chart({ ...common, title: "TCP", lines: [{ name: "bytes", values: of("tcp_bytes_per_second") }], format: kilo, least: 1000 }));
  }
  return h("div", { class: "charts" }, all);
}

const STATES = { healthy: "in use", open: "breaker open", "half-open": "breaker half-open", ejected: "ejected", unhealthy: "fails its checks", unreachable: "unreachable" };

function endpoints(all) {
  if (all.length === 0) return null;
  const bad = (endpoint) => endpoint.state !== "healthy";
  const rows = [...all].sort((a, b) => bad(b) - bad(a) || (a.address < b.address ? -1 : 1));
  return h("section", {}, h("h2", {}, "Endpoints, as their callers see them"),
    h("div", { class: "scroll", "data-scroll": "endpoints" }, h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, ["Endpoint", "State", "Why", "Seen by"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "num" }, "Under way"))),
      h("tbody", {}, rows.map((one) => h("tr", {},
        h("th", { scope: "row" }, one.workload ? one.workload.split("/")[1] : "", " ", h("code", { class: "where" }, one.address)),
        h("td", {}, h("span", { class: `state ${one.state}` }, STATES[one.state] ?? one.state)),
        h("td", { "data-name": "" }, one.why || ""),
        h("td", { "data-name": "seen by" }, one.seen_by.split("/")[1]),
        h("td", { class: "num", "data-name": "under way" }, one.in_progress)))))));
}

function workloads(node, now) {
  if (!node?.workloads.length) return null;
  const last = (one) => (one.reported === null ? "never" : `${age(Math.max(0, now - one.reported))} ago`);
  return h("section", {}, h("h2", {}, "Workloads"),
    h("div", { class: "scroll", "data-scroll": "workloads" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Workload", "Sidecar", "Configuration", "Last report"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, node.workloads.map((one) => h("tr", {},
        h("th", { scope: "row" }, one.name),
        h("td", {}, h("span", { class: `state ${one.connected ? "healthy" : "away"}` }, one.connected ? "connected" : "away")),
        h("td", {}, one.refused ? h("span", { class: "state error" }, "refused some of it") : one.connected ? "accepted" : "not known"),
        h("td", {}, last(one))))))));
}
