// Configuration: what is refused and why, what is in force, and what clients said of it.

import { empty, h } from "./dom.js";
import { plural } from "./format.js";

export function configView(config, nodes) {
  const errors = config.problems.filter((problem) => problem.severity === "error");
  const warnings = config.problems.filter((problem) => problem.severity !== "error");
  const text = [plural(config.accepted.length, "object") + " in force", errors.length ? `${errors.length} refused` : "none refused", warnings.length && plural(warnings.length, "warning")];
  return [
    h("div", { class: "head" }, h("div", {}, h("h1", {}, "Configuration"), h("p", { class: "sub" }, text.filter(Boolean).join(" · ")))),
    errors.length > 0 && h("section", {}, h("h2", {}, "Refused"), errors.map(problem)),
    warnings.length > 0 && h("section", {}, h("h2", {}, "Warnings"), warnings.map(problem)),
    clients(nodes.nodes),
    h("section", {}, h("h2", {}, "In force"), config.accepted.length === 0 ? empty("Nothing yet", "The control plane has accepted no object.") : objects(config.accepted)),
  ];
}

const place = (one) => `${one.file}${one.line ? `:${one.line}` : ""}`;

function problem(one) {
  return h("article", { class: `problem ${one.severity}` },
    h("p", { class: "what" }, h("span", { class: `state ${one.severity}` }, one.object ?? "a file")),
    h("p", {}, one.field && h("code", {}, `${one.field}: `), one.reason),
    h("p", { class: "where" }, h("code", {}, place(one)), one.previous_in_force && " · the previous version stays in force"));
}

function objects(accepted) {
  return h("div", { class: "scroll", "data-scroll": "objects" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Object", "Where"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, accepted.map((one) => h("tr", {}, h("th", { scope: "row" }, one.object), h("td", {}, h("code", { class: "where" }, place(one))))))));
}

function clients(nodes) {
  if (nodes.length === 0) return h("section", {}, h("h2", {}, "Connected clients"), empty("Nobody", "No sidecar, Envoy or gRPC client is connected."));
  const sum = (node, field) => Object.values(node.kinds).reduce((all, kind) => all + kind[field], 0);
  const errors = (node) => Object.entries(node.kinds).filter(([, kind]) => kind.last_error).map(([name, kind]) => `${name}: ${kind.last_error}`);
  return h("section", {}, h("h2", {}, "Connected clients"),
    h("div", { class: "scroll", "data-scroll": "clients" }, h("table", { class: "cards" },
      h("thead", {}, h("tr", {}, ["Client", "Identity", "Kind"].map((name) => h("th", { scope: "col" }, name)), ["Accepted", "Refused"].map((name) => h("th", { scope: "col", class: "num" }, name)), h("th", { scope: "col" }, "Last refusal"))),
      h("tbody", {}, nodes.map((node) => h("tr", {},
        h("th", { scope: "row" }, node.node), h("td", {}, h("code", {}, node.identity)), h("td", {}, node.dialect),
        h("td", { class: "num", "data-name": "accepted" }, sum(node, "acks")), h("td", { class: `num ${sum(node, "nacks") ? "bad" : ""}`, "data-name": "refused" }, sum(node, "nacks")),
        h("td", {}, errors(node).join("; "))))))));
}
