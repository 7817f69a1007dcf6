// The service graph, and the same as a table.

import { empty, h, s } from "./dom.js";
import { NONE, bytes, carriesRequests, health, isIdle, ms, percent, plural, quiet, rate, short, tls } from "./format.js";
import { layout } from "./layout.js";

const BOX = { width: 164, height: 58 };
/** From column to column; between these as the window allows. */
const STEPS = { least: 368, most: 430 };
const ROW = 88;
const LABEL = { width: 160, height: 38 };
/** Between a label and the node beside it. */
const GAP = 20;
const EDGE_OF_STAGE = 26;

export function graphView(graph, tools) {
  const head = heading("Service graph", graph, tools);
  if (graph.nodes.length === 0) return [head, nothing()];
  const idle = graph.edges.every(isIdle) && h("p", { class: "sub" }, "No traffic was reported within the window. Sidecars report every few seconds.");
  return [
    head, idle,
    h("div", { class: "stage", "data-scroll": "graph", role: "group", "aria-label": "Service graph; the same numbers are in the table view" }, drawing(graph)),
    keys(),
    h("section", { class: "narrow-list" }, h("h2", {}, "Edges"), table(graph)),
  ];
}

export function tableView(graph, tools) {
  const head = heading("All edges", graph, tools);
  if (graph.edges.length === 0) return [head, graph.nodes.length ? empty("No traffic", "Nothing was reported within the window.") : nothing()];
  return [head, table(graph)];
}

const nothing = () => empty("An empty mesh", "There is no workload with a sidecar yet, and nobody reports traffic. Workloads appear here as soon as their documents are in force.");

function heading(title, graph, tools) {
  const count = graph.nodes.reduce((sum, node) => sum + node.workloads.length, 0);
  const here = graph.nodes.reduce((sum, node) => sum + node.workloads.filter((one) => one.connected).length, 0);
  const idle = graph.edges.filter(isIdle).length;
  const text = `${plural(here, "sidecar")} connected${here < count ? ` of ${count}` : ""} · ${plural(graph.edges.length, "edge")}${idle ? `, ${idle} idle` : ""} · last ${graph.window} s`;
  return h("div", { class: "head" }, h("div", {}, h("h1", {}, title), h("p", { class: "sub" }, text)), h("div", { class: "tools" }, tools));
}

function drawing(graph) {
  const edges = graph.edges.filter((edge) => edge.from !== edge.to);
  const called = new Set(edges.flatMap((edge) => [edge.from, edge.to]));
  // Those that take part first; the others in rows below.
  const busy = graph.nodes.filter((node) => called.has(node.id));
  const resting = graph.nodes.filter((node) => !called.has(node.id));
  const plan = layout(busy.map((node) => node.id), edges.map((edge) => [edge.from, edge.to]));
  const columns = Math.max(busy.length ? plan.columns : 0, Math.min(resting.length, 4));
  const space = document.getElementById("main").clientWidth - 70 - EDGE_OF_STAGE * 2 - BOX.width;
  const step = Math.min(STEPS.most, Math.max(STEPS.least, Math.floor(space / Math.max(1, columns - 1))));
  const width = EDGE_OF_STAGE * 2 + BOX.width + Math.max(0, columns - 1) * (busy.length ? step : BOX.width + 30);
  const top = EDGE_OF_STAGE + (busy.length ? (plan.rows - 1) * ROW + BOX.height : 0);
  const perRow = Math.max(1, Math.floor((width - EDGE_OF_STAGE * 2 + 30) / (BOX.width + 30)));
  const rows = Math.ceil(resting.length / perRow);
  const height = top + rows * (BOX.height + 22) + (rows && busy.length ? 24 : 0) + EDGE_OF_STAGE;
  const corner = (spot) => ({ x: EDGE_OF_STAGE + spot.x * step, y: EDGE_OF_STAGE + spot.y * ROW });
  const count = (side, id) => edges.filter((edge) => edge[side] === id).length;
  const drawn = edges.map((edge, index) => {
    // Where an edge is alone: at the end that fewer others share.
    const [many, few] = [count("from", edge.from), count("to", edge.to)];
    return line(edge, plan.ways[index].map(corner), many > few ? "to" : few > many ? "from" : "middle");
  });
  spread(drawn.map((one) => one.spot));
  const boxes = busy.map((node) => box(node, corner(plan.at.get(node.id))));
  const others = resting.map((node, index) =>
    box(node, { x: EDGE_OF_STAGE + (index % perRow) * (BOX.width + 30), y: top + (busy.length ? 24 : 0) + Math.floor(index / perRow) * (BOX.height + 22) }));
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}` }, drawn.map((one) => one.path), boxes, others, drawn.map((one) => label(one.edge, one.spot)));
}

/** Labels that would lie on each other move apart. */
function spread(spots) {
  const sorted = [...spots].sort((a, b) => a.y - b.y);
  for (let round = 0; round < 4; round += 1) {
    for (const [index, spot] of sorted.entries()) {
      for (const other of sorted.slice(index + 1)) {
        const near = Math.abs(spot.x - other.x) < LABEL.width && other.y - spot.y < LABEL.height + 4;
        if (near) other.y = spot.y + LABEL.height + 4;
      }
    }
  }
}

function line(edge, points, beside) {
  const state = health(edge);
  const middle = BOX.height / 2;
  const first = { x: points[0].x + BOX.width, y: points[0].y + middle };
  const back = points.length > 1 && points.at(-1).x <= points[0].x;
  const last = { x: points.at(-1).x - (back ? -BOX.width : 0), y: points.at(-1).y + middle };
  const via = points.slice(1, -1).map((point) => ({ x: point.x + BOX.width / 2, y: point.y + middle }));
  const tip = back ? 8 : -8;
  const way = back ? [{ x: points[0].x, y: first.y }, ...via, { x: last.x + tip, y: last.y }] : [first, ...via, { x: last.x + tip, y: last.y }];
  // Straight where the label stands.
  const room = LABEL.width + GAP;
  if (!back && beside === "to") way.splice(-1, 0, { x: last.x - room, y: last.y });
  if (!back && beside === "from") way.splice(1, 0, { x: first.x + room, y: first.y });
  const data = way.slice(1).reduce((text, to, index) => {
    const from = way[index];
    const bend = (to.x - from.x) * 0.5;
    return `${text} C ${from.x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}`;
  }, `M ${way[0].x} ${way[0].y}`);
  const thick = isIdle(edge) ? 1 : 1.3 + Math.min(3.2, Math.log10(1 + edge.requests_per_second + edge.tcp_bytes_per_second / 1000) * 1.3);
  const arrow = `M ${last.x} ${last.y} l ${tip * 1.3} -5 v 10 z`;
  const path = s("g", { class: `edge ${state}` }, s("path", { class: "line", d: data, "stroke-width": thick.toFixed(2) }), s("path", { class: "tip", d: arrow }));
  const [from, to] = beside === "from" ? [way[0], way[1]] : [way.at(-2), way.at(-1)];
  return { path, edge, spot: { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 } };
}

function label(edge, { x, y }) {
  const state = health(edge);
  const requests = carriesRequests(edge);
  const tcp = edge.tcp_connections || edge.tcp_bytes_per_second;
  const main = requests ? `${rate(edge.requests_per_second)}/s · ${percent(edge.success_rate)}` : tcp ? `TCP · ${bytes(edge.tcp_bytes_per_second)}` : quiet(edge);
  const more = requests && edge.p50_ms !== null ? `p50 ${ms(edge.p50_ms)} · p99 ${ms(edge.p99_ms)}` : requests ? "latency not said" : tcp ? plural(edge.tcp_connections, "connection") : "";
  const mark = { all: lock(true), none: lock(false), some: lock(false) }[edge.mutual_tls];
  return s("g", { class: `label ${state}`, transform: `translate(${x - LABEL.width / 2} ${y - LABEL.height / 2})` },
    s("title", {}, `${short(edge.from)} to ${short(edge.to)}: ${[main, more, isIdle(edge) ? "" : tls(edge)].filter(Boolean).join(", ")}${edge.dropped ? `, ${edge.dropped} sent to nobody` : ""}`),
    s("rect", { width: LABEL.width, height: LABEL.height, rx: 7 }),
    s("text", { x: 9, y: more ? 15.5 : 23, class: more ? null : "small" }, main), s("text", { x: 9, y: 30, class: "small" }, more),
    mark && s("g", { transform: `translate(${LABEL.width - 18} 6)` }, mark));
}

/** Shut: all of it by mutual TLS. Open: not, or not all. */
const lock = (shut) => s("g", { class: shut ? "lock" : "lock none" },
  s("path", { d: shut ? "M 2 5 V 3.6 a 2.6 2.6 0 0 1 5.2 0 V 5" : "M 2 5 V 3 a 2.6 2.6 0 0 1 5 -1" }), s("rect", { class: "shut", x: 0.6, y: 5, width: 8, height: 6, rx: 1.2 }));

function box(node, { x, y }) {
  const out = Object.entries(node.endpoints).filter(([state]) => state !== "healthy").reduce((sum, [, count]) => sum + count, 0);
  const away = node.workloads.filter((one) => !one.connected).length;
  const refused = node.workloads.some((one) => one.refused);
  const open = (node.endpoints.open ?? 0) + (node.endpoints["half-open"] ?? 0);
  const alert = open ? plural(open, "breaker") + " open" : out ? plural(out, "endpoint") + " out" : away ? `${away} of ${node.workloads.length} away` : refused ? "refused configuration" : "";
  const what = node.kind === "external" ? "outside the mesh" : node.kind === "client" ? "client without a sidecar" : node.workloads.length ? plural(node.workloads.length, "workload") : "no workload in the mesh";
  const name = node.name.length > 21 ? `${node.name.slice(0, 20)}…` : node.name;
  return s("a", { class: `node ${node.kind} ${alert ? "trouble" : ""}`, href: `#/node/${encodeURIComponent(node.id)}`, "data-key": node.id, "aria-label": `${node.name}, ${node.namespace}, ${what}${alert ? `, ${alert}` : ""}` },
    s("g", { transform: `translate(${x} ${y})` },
      s("title", {}, `${node.namespace ? `${node.namespace}/` : ""}${node.name}`),
      s("rect", { class: "body", width: BOX.width, height: BOX.height, rx: 9 }),
      s("text", { x: 14, y: 25 }, name),
      s("text", { x: 14, y: 43, class: alert ? "small alert" : "small" }, alert || [node.namespace, what].filter(Boolean).join(" · "))));
}

function keys() {
  const stroke = (kind, dash) => s("svg", { width: 26, height: 8, "aria-hidden": "true" }, s("path", { class: kind, d: "M 0 4 H 26", "stroke-width": 2.4, "stroke-dasharray": dash }));
  const mark = (shut) => s("svg", { width: 10, height: 12, "aria-hidden": "true" }, lock(shut));
  return h("ul", { class: "keys", "aria-label": "Key" },
    h("li", {}, stroke("good"), "99 % or more succeed"), h("li", {}, stroke("warn"), "95 % or more"), h("li", {}, stroke("bad", "7 4"), "less"),
    h("li", {}, stroke("idle"), "idle"), h("li", {}, mark(true), "mutual TLS"), h("li", {}, mark(false), "not, or not all"));
}

const COLUMNS = [
  ["Requests/s", (edge) => (carriesRequests(edge) ? rate(edge.requests_per_second) : NONE)],
  ["Success", (edge) => percent(edge.success_rate), health],
  ["p50", (edge) => ms(edge.p50_ms)],
  ["p95", (edge) => ms(edge.p95_ms)],
  ["p99", (edge) => ms(edge.p99_ms)],
  ["Dropped", (edge) => edge.dropped || NONE, (edge) => (edge.dropped ? "bad" : "")],
  ["Retries", (edge) => edge.retries || NONE],
  ["TCP", (edge) => bytes(edge.tcp_bytes_per_second)],
];

/** Edges as a table, worst first. Columns that have nothing to say are left out; `known` is the side that the reader knows. */
export function table(graph, known) {
  const link = (id) => h("a", { href: `#/node/${encodeURIComponent(id)}`, "data-key": `${known ?? "table"} ${id}` }, short(id));
  const failing = (edge) => (health(edge) === "good" || health(edge) === "idle" ? 1 : edge.success_rate ?? 0);
  const rows = [...graph.edges].sort((a, b) => failing(a) - failing(b) || (`${a.from} ${a.to}` < `${b.from} ${b.to}` ? -1 : 1));
  const columns = COLUMNS.filter(([, text]) => rows.some((edge) => text(edge) !== NONE));
  const ends = ["from", "to"].filter((side) => side !== known);
  const seen = (edge) => edge.reporter === "server" && h("span", { class: "where" }, " (told by the callee)");
  const end = (edge, side, index) => (index ? h("td", { class: "name", "data-name": side }, link(edge[side]), seen(edge)) : h("th", { class: "name", scope: "row" }, link(edge[side]), ends.length === 1 && seen(edge)));
  return h("div", { class: "scroll", "data-scroll": `table ${known}` }, h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, ends.map((side) => h("th", { scope: "col" }, side === "from" ? "From" : "To")),
      columns.map(([name]) => h("th", { scope: "col", class: "num" }, name)), h("th", { scope: "col" }, "TLS"))),
    h("tbody", {}, rows.map((edge) => h("tr", {},
      ends.map((side, index) => end(edge, side, index)),
      columns.map(([name, text, kind]) => h("td", { class: `num ${kind?.(edge) ?? ""}`, "data-name": name.toLowerCase() }, text(edge))),
      h("td", { class: "name", "data-name": "" }, isIdle(edge) ? quiet(edge) : tls(edge)))))));
}
