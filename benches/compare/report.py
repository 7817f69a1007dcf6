"""The table and the JSON."""

import datetime
import os
import platform

from compared import blocks
from rounds import counted


def table(results):
    """All results as text: a block for each scenario and number of workers."""
    return "\n\n".join(_block(block) for block in blocks(results))


def _block(block):
    scenario = block.scenario
    columns = [("", [result.contender for result in block.results])]
    for figure in scenario.figures:
        columns += _columns(block, figure)
    # A column that says nothing about anybody is not shown.
    columns = [[head, *cells] for head, cells in columns if any(cells)]
    rows = [list(row) for row in zip(*columns)]
    return f"{scenario.title}, {counted(block.workers, 'worker')}\n{align(rows)}"


def _columns(block, figure):
    """The median and its spread, and what it is beside others."""
    number = f",.{figure.digits}f"
    measured = [(result, result.has(figure)) for result in block.results]

    def ratios(ratio):
        return [f"{value:.2f}" if has and (value := ratio(result, figure)) is not None else ""
                for result, has in measured]

    def added():
        return [format(value, number) if has and (value := block.value(result, figure)) is not None else ""
                for result, has in measured]

    return [
        (figure.title, [format(result.median(figure), number) if has else "failed" if result.failure else "-"
                        for result, has in measured]),
        ("min - max", [_spread(result.samples[figure.key], number) if has else "" for result, has in measured]),
        ("added", added() if figure.added else []),
        ("÷ Envoy", ratios(block.by_envoy)),
        (f"÷ {counted(block.fewest[0].workers, 'worker')}", ratios(block.by_fewest_workers)),
        ("÷ first build", ratios(block.by_first_build)),
    ]


def _spread(samples, number):
    return f"{min(samples):{number}} - {max(samples):{number}}"


def align(rows):
    """The first column to the left, numbers to the right, a rule below the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                       for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def machine():
    """What it ran on."""
    model = "unknown"
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), model)
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory, 1), "kernel": platform.release()}


def as_json(results, settings, versions):
    """Everything, with each sample."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(), "load_average": os.getloadavg(), "versions": versions, "settings": settings,
        "results": [_result(result) for result in results],
    }


def _result(result):
    figures = {
        figure.key: {"title": figure.title, "median": result.median(figure), "min": min(result.samples[figure.key]),
                     "max": max(result.samples[figure.key]), "samples": result.samples[figure.key]}
        for figure in result.scenario.figures if result.has(figure)}
    return {"scenario": result.scenario.name, "title": result.scenario.title, "contender": result.contender,
            "workers": result.workers, "figures": figures, "failure": result.failure}
