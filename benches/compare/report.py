"""The table and the JSON."""

import datetime
import os
import platform


def table(results):
    """All results as text: a block for each scenario and number of workers."""
    blocks = {}
    for result in results:
        blocks.setdefault((result.scenario.name, result.workers), []).append(result)
    return "\n\n".join(_block(block) for block in blocks.values())


def _block(results):
    scenario, workers = results[0].scenario, results[0].workers
    main = scenario.main
    best_envoy = min((r.median(main) for r in results if r.contender.startswith("envoy") and r.has(main)), default=None)
    head = [f"{scenario.title}, {workers} worker{'s' if workers > 1 else ''}"]
    for figure in scenario.figures:
        head += [figure.title, "min - max"]
    rows = [head + ["÷ Envoy"]]
    for result in results:
        row = [result.contender]
        for figure in scenario.figures:
            row += _cells(result, figure)
        row.append(f"{result.median(main) / best_envoy:.2f}" if best_envoy and result.has(main) else "")
        rows.append(row)
    return align(rows)


def _cells(result, figure):
    if not result.has(figure):
        return ["failed" if result.failure else "-", ""]
    samples = result.samples[figure.key]
    number = f",.{figure.digits}f"
    return [format(result.median(figure), number), f"{min(samples):{number}} - {max(samples):{number}}"]


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
