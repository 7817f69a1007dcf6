// Which view is shown, and the numbers that all of them share.

import { LoggedOut, Refused, get, logIn, logOut, tokenOfAddress } from "./api.js";
import { configView } from "./config.js";
import { h, show } from "./dom.js";
import { age } from "./format.js";
import { graphView, tableView } from "./graph.js";
import { nodeView } from "./node.js";
import { stopTap, tapView } from "./tap.js";

const EVERY_MS = 2500;
const main = document.getElementById("main");
const pulse = document.getElementById("pulse");
const away = document.getElementById("away");
const out = document.getElementById("logout");
const settings = { window: 30, history: 120, namespace: "" };
const state = { at: 0, namespaces: [], timer: 0, turn: 0, view: "" };

const route = () => {
  const [view, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  return { view: view || "graph", id: decodeURIComponent(rest.join("/")) };
};

async function draw() {
  const turn = ++state.turn;
  clearTimeout(state.timer);
  const { view, id } = route();
  const isNew = `${view} ${id}` !== state.view;
  const current = () => turn === state.turn;
  try {
    const content = await build(view, id, isNew);
    if (!current()) return;
    if (content) show(main, content);
    answered();
    if (isNew) entered(view, id);
  } catch (error) {
    if (!current()) return;
    if (error instanceof LoggedOut) return logInView();
    if (!(error instanceof Refused) && !(error instanceof TypeError) && !(error instanceof DOMException)) throw error;
    missed(error instanceof Refused ? `The control plane answers, but says: ${error.message}.` : "The control plane does not answer.");
  }
  state.timer = setTimeout(draw, document.hidden ? EVERY_MS * 8 : EVERY_MS);
}

async function build(view, id, isNew) {
  if (view !== "tap") stopTap();
  if (view === "tap") {
    await get("/api/v1/graph?window=5");
    return isNew ? tapView(logInView) : null;
  }
  if (view === "config") {
    const [config, nodes] = await Promise.all([get("/api/v1/config"), get("/api/v1/nodes")]);
    return configView(config, nodes);
  }
  const asked = new URLSearchParams({ window: settings.window });
  if (view === "node") {
    const about = new URLSearchParams({ id, window: settings.history });
    const [graph, detail] = await Promise.all([get(`/api/v1/graph?${asked}`), get(`/api/v1/node?${about}`)]);
    return nodeView(id, graph, detail, choice("history", "History", [[120, "2 min"], [900, "15 min"]]));
  }
  if (settings.namespace) asked.set("namespace", settings.namespace);
  const graph = await get(`/api/v1/graph?${asked}`);
  for (const node of graph.nodes) if (node.namespace && !state.namespaces.includes(node.namespace)) state.namespaces.push(node.namespace);
  const tools = [
    state.namespaces.length > 1 && choice("namespace", "Namespace", [["", "all"], ...state.namespaces.sort().map((name) => [name, name])]),
    choice("window", "Over", [[10, "10 s"], [30, "30 s"], [120, "2 min"], [900, "15 min"]]),
  ];
  return view === "table" ? tableView(graph, tools) : graphView(graph, tools);
}

function choice(name, title, options) {
  const select = h("select", { "data-key": `choice ${name}` }, options.map(([value, text]) => h("option", { value, selected: String(settings[name]) === String(value) }, text)));
  select.addEventListener("change", () => { settings[name] = select.value; draw(); });
  return h("label", {}, title, select);
}

function entered(view, id) {
  const first = state.view === "";
  state.view = `${view} ${id}`;
  for (const link of document.querySelectorAll("#views a")) {
    const target = link.getAttribute("href").slice(2) || "graph";
    if (target === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${document.querySelector("h1")?.textContent ?? "Mesh"} – Pillion`;
  if (!first) { main.focus({ preventScroll: true }); scrollTo(0, 0); }
}

function answered() {
  state.at = Date.now();
  away.hidden = true;
  out.hidden = false;
  document.body.classList.remove("stale");
  tell();
}

function missed(text) {
  document.body.classList.add("stale");
  const old = state.at ? ` What is shown is ${age((Date.now() - state.at) / 1000)} old.` : "";
  away.textContent = `${text}${old} Trying again.`;
  away.hidden = false;
  if (!state.at) show(main, h("p", { class: "empty" }, h("strong", {}, "No connection"), "Nothing has been received yet."));
  tell();
}

/** How fresh the numbers are. */
function tell() {
  const seconds = (Date.now() - state.at) / 1000;
  const stale = document.body.classList.contains("stale");
  pulse.className = `pulse ${stale ? "late" : "live"}`;
  const text = stale ? "not live" : seconds < 8 ? "live" : `${age(seconds)} old`;
  if (pulse.textContent !== text) pulse.textContent = text;
}

function logInView(wrong) {
  state.view = "";
  clearTimeout(state.timer);
  state.turn += 1;
  stopTap();
  out.hidden = true;
  away.hidden = true;
  document.body.classList.remove("stale");
  pulse.className = "pulse";
  pulse.textContent = "logged out";
  const input = h("input", { type: "password", name: "token", autocomplete: "off", required: true, spellcheck: "false", "aria-describedby": "why" });
  const note = h("p", { class: "wrong", id: "why", role: "alert" }, typeof wrong === "string" ? wrong : "");
  const form = h("form", {}, h("label", {}, "Token", input), h("button", { class: "first" }, "Log in"), note);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    note.textContent = "";
    try {
      await logIn(input.value.trim());
      draw();
    } catch (error) {
      note.textContent = error instanceof Refused ? `Not let in: ${error.message}.` : "The control plane does not answer.";
      input.select();
    }
  });
  show(main, h("section", { class: "login" }, h("h1", {}, "Log in"), h("p", { class: "sub" }, "The control plane printed an address with a token when it started; open it, or paste the token here."), form));
  document.title = "Log in – Pillion";
  input.focus();
}

async function start() {
  const token = tokenOfAddress();
  if (token) {
    try {
      await logIn(token);
    } catch (error) {
      if (error instanceof Refused) return logInView(`Not let in: ${error.message}.`);
    }
  }
  draw();
}

addEventListener("hashchange", () => {
  if (location.hash === "#main") return;
  if (new URLSearchParams(location.hash.slice(1)).get("token")) start();
  else if (out.hidden === false || state.at) draw();
});
document.addEventListener("visibilitychange", () => { if (!document.hidden && !out.hidden) draw(); });
out.addEventListener("click", async () => { await logOut().catch(() => {}); logInView(); });
setInterval(tell, 1000);
start();
