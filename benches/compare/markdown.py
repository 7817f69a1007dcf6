"""All figures as one table in Markdown, for a page that shows them: a row for each, a column for each contender."""

from compared import blocks
from rounds import counted


def table(results):
    """Medians with their smallest and largest values; of a peer's arrangements the better one."""
    all_blocks = blocks(results)
    names = list(dict.fromkeys(name for block in all_blocks for name in block.better()))
    builds = [name for name in names if name.startswith("pillion")]
    rows = [["", *names, *(f"{name} ÷ envoy" for name in builds)]]
    rows.append(["---"] * len(rows[0]))
    for block in all_blocks:
        rows += [_row(block, figure, names, builds) for figure in block.scenario.figures]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(block, figure, names, builds):
    better = block.better()
    workers = "" if block.workers == 1 else f", {counted(block.workers, 'worker')}"
    return [f"{block.scenario.title}{workers}: {figure.title}",
            *(_cell(better.get(name), figure) for name in names),
            *(_ratio(block, better.get(name), figure) for name in builds)]


def _cell(result, figure):
    if result is None or not result.has(figure):
        return "-"
    samples, number = result.samples[figure.key], f",.{figure.digits}f"
    return f"{result.median(figure):{number}} ({min(samples):{number}} - {max(samples):{number}})"


def _ratio(block, result, figure):
    """For what is compared by what was added, of that."""
    ratio = block.by_envoy(result, figure) if result else None
    return "-" if ratio is None else f"{ratio:.2f}"
