// Small line charts over time, drawn by hand.

import { h, s } from "./dom.js";
import { NONE } from "./format.js";

const FRAME = { width: 420, height: 150, left: 44, top: 10, bottom: 22 };
const KINDS = ["a", "b", "c"];

/**
 * `lines`: [{ name, values }] with a value (or null) per slot of `times` (Unix seconds); `format` makes text of a value.
 */
export function chart({ title, lines, times, slot, now, window, format, floor = 0, least = 1, top }) {
  const SIZE = { ...FRAME, right: lines.length > 1 ? 34 : 8 };
  const all = lines.flatMap((line) => line.values).filter((value) => value !== null && value !== undefined);
  const most = top ?? nice(Math.max(least, ...all));
  const x = (time) => SIZE.left + ((time - (now - window)) / window) * (SIZE.width - SIZE.left - SIZE.right);
  const y = (value) => SIZE.height - SIZE.bottom - ((value - floor) / (most - floor)) * (SIZE.height - SIZE.top - SIZE.bottom);
  const grid = [0, 0.5, 1].map((share) => floor + share * (most - floor));
  const readout = h("output", { "aria-live": "polite" }, latest(lines, format));
  const cross = s("g", { "aria-hidden": "true" });
  const svg = s("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", tabindex: 0, "data-key": `chart ${title}`, "aria-label": `${title}, ${latest(lines, format)}. Arrow keys read earlier values.` },
    grid.map((value) => [s("path", { class: "grid", d: `M ${SIZE.left} ${y(value)} H ${SIZE.width - SIZE.right}` }), s("text", { class: "axis", x: SIZE.left - 6, y: y(value) + 3.5, "text-anchor": "end" }, format(value))]),
    s("text", { class: "axis", x: SIZE.left, y: SIZE.height - 6 }, `${Math.round(window / 60)} min ago`),
    s("text", { class: "axis", x: SIZE.width - SIZE.right, y: SIZE.height - 6, "text-anchor": "end" }, "now"),
    lines.map((line, index) => drawn(line, index, lines.length, times, slot, x, y, floor)), names(lines, SIZE, y), cross);
  if (all.length === 0) svg.append(s("text", { class: "axis", x: SIZE.width / 2, y: SIZE.height / 2, "text-anchor": "middle" }, "nothing within this time"));
  read(svg, cross, readout, { lines, times, now, format, x, y, SIZE });
  return h("figure", { class: "chart" }, h("figcaption", {}, title, readout), svg);
}

function drawn(line, index, count, times, slot, x, y, floor) {
  const pieces = [];
  let previous = null;
  line.values.forEach((value, at) => {
    if (value === null || value === undefined) return void (previous = null);
    const joined = previous !== null && times[at] - previous <= slot * 1.5;
    if (!joined) pieces.push([]);
    pieces.at(-1).push([x(times[at]), y(value)]);
    previous = times[at];
  });
  const text = (piece) => piece.map(([px, py], step) => `${step ? "L" : "M"} ${px.toFixed(1)} ${py.toFixed(1)}`).join(" ") + (piece.length === 1 ? " h 2" : "");
  const area = count === 1 ? pieces.map((piece) => s("path", { class: "area", d: `${text(piece)} L ${piece.at(-1)[0].toFixed(1)} ${y(floor)} L ${piece[0][0].toFixed(1)} ${y(floor)} Z` })) : [];
  return [area, pieces.map((piece) => s("path", { class: KINDS[index], d: text(piece) }))];
}

/** Names at the ends of the lines, apart from each other. */
function names(lines, SIZE, y) {
  if (lines.length < 2) return [];
  const ends = lines.map((line, index) => ({ index, name: line.name, value: line.values.findLast((value) => value !== null && value !== undefined) }));
  const known = ends.filter((end) => end.value !== undefined).sort((a, b) => b.value - a.value);
  const [gap, lowest] = [11, SIZE.height - SIZE.bottom + 3.5];
  let free = SIZE.top;
  return known.map((end, index) => {
    const at = Math.min(Math.max(free, y(end.value) + 3.5), lowest - (known.length - 1 - index) * gap);
    free = at + gap;
    return s("text", { class: `name ${KINDS[end.index]}`, x: SIZE.width - SIZE.right + 6, y: at }, end.name);
  });
}

function latest(lines, format) {
  const parts = lines.map((line) => {
    const value = line.values.findLast((one) => one !== null && one !== undefined);
    return value === undefined ? NONE : `${lines.length > 1 ? `${line.name} ` : ""}${format(value)}`;
  });
  return parts.join(" · ");
}

/** Values at a moment: by pointer, or by the arrow keys. */
function read(svg, cross, readout, { lines, times, now, format, x, y, SIZE }) {
  let spot = times.length - 1;
  const mark = (index) => {
    if (times.length === 0) return;
    spot = Math.max(0, Math.min(times.length - 1, index));
    const parts = lines.map((line) => `${lines.length > 1 ? `${line.name} ` : ""}${format(line.values[spot])}`);
    readout.textContent = `${Math.max(0, Math.round(now - times[spot]))} s ago: ${parts.join(" · ")}`;
    const dots = lines.flatMap((line, kind) => (line.values[spot] ?? null) === null ? [] : [s("circle", { class: KINDS[kind], cx: x(times[spot]), cy: y(line.values[spot]), r: 3 })]);
    cross.replaceChildren(s("path", { class: "cross", d: `M ${x(times[spot])} ${SIZE.top} V ${SIZE.height - SIZE.bottom}` }), ...dots);
  };
  const rest = () => { cross.replaceChildren(); readout.textContent = latest(lines, format); };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * SIZE.width;
    mark(times.reduce((best, time, index) => (Math.abs(x(time) - wanted) < Math.abs(x(times[best]) - wanted) ? index : best), 0));
  });
  svg.addEventListener("pointerleave", rest);
  svg.addEventListener("blur", rest);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) { event.preventDefault(); mark(spot + step); }
  });
}

function nice(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most) ?? most;
}
