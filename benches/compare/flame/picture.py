"""A flame graph as one SVG without anything beside it: wide is what takes long, above a function is what it calls.

A click on a function makes it as wide as the picture, where a browser opens the file itself.
"""

import dataclasses
from xml.sax.saxutils import escape

from flame.kinds import KINDS, kind_of

_WIDTH, _ROW, _MARGIN, _HEAD = 1200, 17, 10, 56
_LETTER = 6.6
# Narrower ones, in pixels, are left out: nobody sees them, and they are most of the file.
_NARROWEST = 0.4
_STYLE = """
text { font: 11px ui-monospace, monospace; fill: #1c1917; pointer-events: none }
.ground { fill: #ffffff } .head { font: 600 15px system-ui, sans-serif } .note { font: 12px system-ui, sans-serif }
g[data-x] { cursor: pointer } g[data-x]:hover rect { stroke: #1c1917 } .base { fill: #d6d3d1 }
@media (prefers-color-scheme: dark) {
  .ground { fill: #0d1117 } .head, .note { fill: #e6edf3 } g[data-x]:hover rect { stroke: #ffffff }
}
"""
# Frames carry their place as a share of the width; the script only computes places again.
_SCRIPT = """
const frames = [...document.querySelectorAll('g[data-x]')];
const place = (frame) => [Number(frame.dataset.x), Number(frame.dataset.w), Number(frame.dataset.d)];
for (const chosen of frames) chosen.addEventListener('click', () => {
  const [left, width, depth] = place(chosen);
  for (const frame of frames) {
    const [x, w, d] = place(frame);
    const below = d <= depth && x <= left + 1e-9 && x + w >= left + width - 1e-9;
    const above = d > depth && x >= left - 1e-9 && x + w <= left + width + 1e-9;
    frame.style.display = below || above ? '' : 'none';
    if (!below && !above) continue;
    const from = below ? 0 : (x - left) / width, share = below ? 1 : w / width;
    const [box, label] = [frame.querySelector('rect'), frame.querySelector('text')];
    box.setAttribute('x', MARGIN + from * ROOM);
    box.setAttribute('width', Math.max(share * ROOM - 0.4, 0.2));
    label.setAttribute('x', MARGIN + from * ROOM + 3);
    const letters = Math.floor((share * ROOM - 6) / LETTER), name = frame.dataset.name;
    label.textContent = letters < 3 ? '' : name.length > letters ? name.slice(0, letters - 1) + '…' : name;
  }
});
"""


@dataclasses.dataclass
class _Node:
    name: str
    count: int = 0
    above: dict = dataclasses.field(default_factory=dict)


def svg(title, stacks):
    """The picture of folded stacks."""
    root = _tree(title, stacks)
    placed = _placed(root)
    height = _HEAD + (max(depth for _, _, depth in placed) + 1) * _ROW + _MARGIN
    room = _WIDTH - 2 * _MARGIN
    script = _SCRIPT.replace("MARGIN", str(_MARGIN)).replace("ROOM", str(room)).replace("LETTER", str(_LETTER))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f"<style>{_STYLE}</style>", f'<rect class="ground" width="{_WIDTH}" height="{height}"/>',
        f'<text class="head" x="{_MARGIN}" y="22">{escape(title)}</text>', *_legend(),
        *(_frame(node, from_, depth, root.count, height, room) for node, from_, depth in placed),
        f"<script><![CDATA[{script}]]></script>", "</svg>", ""])


def _tree(title, stacks):
    root = _Node(title)
    for stack, count in sorted(stacks.items()):
        node = root
        node.count += count
        for name in stack:
            node = node.above.setdefault(name, _Node(name))
            node.count += count
    return root


def _placed(root):
    """Every node that is wide enough, with where it begins (in samples) and how high it stands."""
    placed, waiting = [], [(root, 0, 0)]
    narrowest = _NARROWEST * root.count / _WIDTH
    while waiting:
        node, begins, depth = waiting.pop()
        placed.append((node, begins, depth))
        for child in node.above.values():
            if child.count >= narrowest:
                waiting.append((child, begins, depth + 1))
            begins += child.count
    return placed


def _frame(node, begins, depth, total, height, room):
    """A function in one place: its bar, its name as far as there is room, and all of it for whoever points at it."""
    x, width = begins / total, node.count / total
    left, top = _MARGIN + x * room, height - _MARGIN - (depth + 1) * _ROW
    letters = int((width * room - 6) / _LETTER)
    label = "" if letters < 3 else node.name if len(node.name) <= letters else node.name[:letters - 1] + "…"
    # The first storeys are the whole, the process and the thread.
    look = f'fill="{KINDS[kind_of(node.name)]}"' if depth > 2 else 'class="base"'
    name = escape(node.name, {'"': "&quot;"})
    return (f'<g data-x="{x:.6f}" data-w="{width:.6f}" data-d="{depth}" data-name="{name}">'
            f"<title>{name}: {width:.2%}, {node.count:,} samples</title>"
            f'<rect x="{left:.2f}" y="{top}" width="{max(width * room - 0.4, 0.2):.2f}" height="{_ROW - 1}" {look}/>'
            f'<text x="{left + 3:.2f}" y="{top + 12}">{escape(label)}</text></g>')


def _legend():
    parts, x = [], _MARGIN
    for kind, colour in KINDS.items():
        parts.append(f'<rect x="{x}" y="33" width="12" height="12" fill="{colour}"/>'
                     f'<text class="note" x="{x + 16}" y="43">{kind}</text>')
        x += 34 + 7 * len(kind)
    return parts
