"""The main figure of each scenario by Envoy's, as bars: SVG written by hand, for light and for dark pages.

Shown are Pillion, and of each other peer its better arrangement, with the smallest number of workers that was measured.
Numbers with their spread are the table's.
"""

from xml.sax.saxutils import escape

from compared import blocks

_WIDTH, _MARGIN, _COLUMNS, _GUTTER = 880, 16, 2, 28
_LABEL, _NUMBERS, _BAR, _STEP = 104, 102, 13, 18
_PANEL_HEAD, _PANEL_FOOT, _HEAD = 40, 16, 62
# Bars end here, broken off; their number says how far they would go.
_MOST = 2.0
_STYLE = """
.ground { fill: #ffffff; stroke: #d1d9e0 } text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 13px } .quiet { fill: #59636e } .pillion { fill: #c2410c }
.earlier { fill: #e8a98a } .envoy { fill: #6b7c93 } .other { fill: #b4bfcb }
.one { stroke: #59636e; stroke-dasharray: 2 3 } .break { stroke: #ffffff; stroke-width: 3 }
@media (prefers-color-scheme: dark) {
  .ground { fill: #0d1117; stroke: #3d444d } text { fill: #f0f6fc } .quiet { fill: #9198a1 }
  .pillion { fill: #f0703a } .earlier { fill: #8a4a2c } .envoy { fill: #8b9bb0 } .other { fill: #4d5866 }
  .one { stroke: #9198a1 } .break { stroke: #0d1117 }
}
"""


def svg(results):
    """A panel for each scenario in which Envoy was measured; all have one scale."""
    panels = [panel for block in blocks(results) if block.fewest is block.results and (panel := _panel(block))]
    width = (_WIDTH - 2 * _MARGIN - (_COLUMNS - 1) * _GUTTER) / _COLUMNS
    parts, y = [], _HEAD
    for first in range(0, len(panels), _COLUMNS):
        row = panels[first:first + _COLUMNS]
        for number, (head, bars) in enumerate(row):
            parts += _drawn(head, bars, _MARGIN + number * (width + _GUTTER), y, width)
        y += _PANEL_HEAD + max(len(bars) for _, bars in row) * _STEP + _PANEL_FOOT
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{y - 1}" rx="6"/>',
        _text(_MARGIN, 26, "Pillion and others by Envoy's better arrangement: less is better", "title"),
        _text(_MARGIN, 44, "bars: how many times Envoy's figure; numbers: that, and the figure itself; "
                           "one machine, one run, medians", "quiet"),
        *parts, "</svg>", ""])


def _panel(block):
    """Title, figure, and a bar for each peer: its name, how many times Envoy's, the value, its look."""
    main, better = block.scenario.main, block.better()
    if block.envoy() is None:
        return None
    last_build = [name for name in better if name.startswith("pillion")][-1:]
    looks = {"envoy": "envoy", **dict.fromkeys(last_build, "pillion")}
    bars = [(name, ratio, f"{block.value(result, main):,.{main.digits}f}",
             looks.get(name, "earlier" if name.startswith("pillion") else "other"))
            for name, result in better.items() if (ratio := block.by_envoy(result, main)) is not None]
    return (block.scenario.title, f"{'added ' if main.added else ''}{main.title}"), bars


def _drawn(head, bars, x, y, width):
    """One panel."""
    title, figure = head
    left, scale = x + _LABEL, (width - _LABEL - _NUMBERS) / _MOST
    parts = [_text(x, y + 12, title, "title"), _text(x, y + 27, figure, "quiet")]
    for number, (name, ratio, value, look) in enumerate(bars):
        parts += _bar(name, ratio, value, look, left, y + _PANEL_HEAD + number * _STEP, scale)
    return [*parts, f'<path class="one" d="M{left + scale:.1f} {y + _PANEL_HEAD - 6}v{len(bars) * _STEP + 6}"/>']


def _bar(name, ratio, value, look, left, y, scale):
    end, base = left + min(ratio, _MOST) * scale, y + _BAR - 3
    numbers = left + _MOST * scale
    parts = [_text(left - 8, base, name, "", "end"),
             f'<rect class="{look}" x="{left}" y="{y}" width="{max(end - left, 1):.1f}" height="{_BAR}"/>',
             _text(numbers + 42, base, f"{ratio:.2f}", "", "end"),
             _text(numbers + _NUMBERS, base, value, "quiet", "end")]
    if ratio > _MOST:
        parts.append(f'<path class="break" d="M{end - 12:.1f} {y + _BAR + 2}l6 -{_BAR + 4}"/>')
    return parts


def _text(x, y, text, look, anchor="start"):
    return f'<text class="{look}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
