// A drawing of a directed graph in layers, left to right (after Sugiyama): cycles are cut, each node stands one layer behind
// those that call it, edges over several layers bend around what is between, and neighbours are ordered by theirs.

/**
 * `nodes`: ids; `edges`: [from, to]. Gives columns and rows of nodes, and the points that each edge passes.
 * @returns {{ columns: number, at: Map<string, {x: number, y: number}>, ways: Array<Array<{x: number, y: number}>>, rows: number }}
 */
export function layout(nodes, edges) {
  const forward = cutCycles(nodes, edges);
  const depth = depths(nodes, forward);
  const layers = [];
  const place = (id, layer) => (layers[layer] ??= []).push(id);
  for (const id of nodes) place(id, depth.get(id));
  const links = [];
  const chains = edges.map(([from, to], index) => {
    const [first, last] = depth.get(from) <= depth.get(to) ? [from, to] : [to, from];
    const chain = [first];
    for (let layer = depth.get(first) + 1; layer < depth.get(last); layer += 1) {
      const bend = `bend:${index}:${layer}`;
      place(bend, layer);
      chain.push(bend);
    }
    if (first !== last) chain.push(last);
    chain.slice(1).forEach((id, step) => links.push([chain[step], id]));
    return first === from ? chain : chain.reverse();
  });
  order(layers, links);
  const at = rows(layers, links);
  return {
    at,
    columns: layers.length,
    rows: Math.max(1, ...[...at.values()].map((spot) => spot.y + 1)),
    ways: chains.map((chain) => chain.map((id) => at.get(id))),
  };
}

function cutCycles(nodes, edges) {
  const out = new Map(nodes.map((id) => [id, []]));
  for (const [from, to] of edges) if (from !== to) out.get(from)?.push(to);
  const calls = new Map(nodes.map((id) => [id, 0]));
  for (const [from, to] of edges) if (from !== to) calls.set(to, (calls.get(to) ?? 0) + 1);
  // Those that nobody calls come first.
  const starts = [...nodes].sort((a, b) => calls.get(a) - calls.get(b) || (a < b ? -1 : 1));
  const state = new Map();
  const kept = [];
  const visit = (id) => {
    state.set(id, "open");
    for (const next of out.get(id)) {
      if (state.get(next) === "open") continue; // Back along a cycle: drawn, but not counted.
      kept.push([id, next]);
      if (!state.has(next)) visit(next);
    }
    state.set(id, "done");
  };
  for (const id of starts) if (!state.has(id)) visit(id);
  return kept;
}

function depths(nodes, edges) {
  const depth = new Map(nodes.map((id) => [id, 0]));
  for (let round = 0; round < nodes.length; round += 1) {
    let moved = false;
    for (const [from, to] of edges) {
      if (depth.get(to) <= depth.get(from)) {
        depth.set(to, depth.get(from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  return depth;
}

function order(layers, links) {
  for (const layer of layers) layer.sort();
  const mean = (id, layer, side) => {
    const spots = links.filter((link) => link[1 - side] === id).map((link) => layer.indexOf(link[side])).filter((spot) => spot >= 0);
    return spots.length ? spots.reduce((sum, spot) => sum + spot, 0) / spots.length : null;
  };
  for (let sweep = 0; sweep < 6; sweep += 1) {
    const down = sweep % 2 === 0;
    const steps = layers.map((_, index) => index).slice(1);
    for (const step of down ? steps : steps.reverse()) {
      const [moving, fixed, side] = down ? [layers[step], layers[step - 1], 0] : [layers[step - 1], layers[step], 1];
      const wish = new Map(moving.map((id, index) => [id, mean(id, fixed, side) ?? index]));
      moving.sort((a, b) => wish.get(a) - wish.get(b));
    }
  }
}

/** Rows as near to the neighbours' as the order allows. */
function rows(layers, links) {
  const tallest = Math.max(1, ...layers.map((layer) => layer.length));
  const row = new Map();
  for (const layer of layers) layer.forEach((id, index) => row.set(id, index + (tallest - layer.length) / 2));
  for (let round = 0; round < 8; round += 1) {
    for (const layer of layers) {
      const wishes = layer.map((id) => {
        const near = links.flatMap(([a, b]) => (a === id ? [row.get(b)] : b === id ? [row.get(a)] : []));
        return near.length ? near.reduce((sum, spot) => sum + spot, 0) / near.length : row.get(id);
      });
      let free = -Infinity;
      const placed = wishes.map((wish) => (free = Math.max(wish, free + 1)));
      const shift = wishes.reduce((sum, wish, index) => sum + wish - placed[index], 0) / layer.length;
      layer.forEach((id, index) => row.set(id, placed[index] + shift));
    }
  }
  const top = Math.min(...row.values());
  const at = new Map();
  layers.forEach((layer, x) => layer.forEach((id) => at.set(id, { x, y: row.get(id) - top })));
  return at;
}
