"""The main figure of each scenario as horizontal bars, in SVG written by hand."""

from xml.sax.saxutils import escape

_WIDTH, _LABEL, _BAR, _GAP, _HEAD = 760, 200, 18, 6, 34
_SCALE = _WIDTH - _LABEL - 150
_COLOURS = {"pillion": "#c2410c", "no proxy": "#a3a3a3"}
_OTHERS = "#475569"


def svg(results):
    """A picture: a group of bars for each scenario and number of workers, each group with a scale of its own."""
    groups = {}
    for result in results:
        if result.has(result.scenario.main):
            groups.setdefault((result.scenario.name, result.workers), []).append(result)
    parts, y = [], 12
    for group in groups.values():
        drawn, y = _group(group, y)
        parts += drawn
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{y}" fill="#ffffff"/>', *parts, "</svg>", ""])


def _group(results, y):
    figure = results[0].scenario.main
    workers = results[0].workers
    unit = f"{figure.title}, {workers} worker{'s' if workers > 1 else ''}, less is better"
    parts = [f'<text x="8" y="{y + 16}" font-weight="600">{escape(results[0].scenario.title)}'
             f'<tspan font-weight="400" fill="#737373" dx="8">{escape(unit)}</tspan></text>']
    y += _HEAD - 6
    longest = max(max(result.samples[figure.key]) for result in results) or 1.0
    for result in results:
        parts += _bar(result, figure, _SCALE / longest, y)
        y += _BAR + _GAP
    return parts, y + 14


def _bar(result, figure, scale, y):
    """Label, bar up to the median, a whisker from the smallest to the largest sample, the number."""
    samples, median = result.samples[figure.key], result.median(figure)
    low, high = (_LABEL + value * scale for value in (min(samples), max(samples)))
    middle, base = y + _BAR / 2, y + _BAR - 4.5
    colour = _COLOURS.get(result.contender, _OTHERS)
    return [
        f'<text x="{_LABEL - 8}" y="{base}" text-anchor="end">{escape(result.contender)}</text>',
        f'<rect x="{_LABEL}" y="{y}" width="{median * scale:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8" '
        'stroke="#171717" fill="none"/>',
        f'<text x="{max(high, _LABEL) + 8:.1f}" y="{base}">{median:,.{figure.digits}f}</text>']
