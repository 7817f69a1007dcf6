"""What is shown, and what is kept as JSON."""

import collections
import dataclasses
import datetime
import json
import statistics

from lab.process import Failure
from report import align, machine

_KEPT_FUNCTIONS = 60
_LONGEST_NAME = 120


@dataclasses.dataclass
class Counted:
    """One sidecar of a walk: what each round counted, per request."""

    walk: str
    title: str
    side: str
    requests: int
    instructions: list[float] = dataclasses.field(default_factory=list)
    allocations: list[float] = dataclasses.field(default_factory=list)
    functions: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Instructions of each function by itself per request, the mean of the rounds."""
    calls: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Calls of each allocating function per request, the mean of the rounds."""
    allocating: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """The same calls by who calls."""
    copying: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Instructions of `memcpy` by who calls it, per request, the mean of the rounds."""

    def add(self, dump):
        """Takes in one round."""
        rounds = len(self.instructions)
        self.instructions.append(dump.instructions / self.requests)
        self.allocations.append(dump.allocations.total() / self.requests)
        for kept, new in ((self.functions, dump.functions), (self.calls, dump.allocations),
                          (self.allocating, dump.allocating), (self.copying, dump.copying)):
            for name in kept.keys() | new.keys():
                kept[name] += (new[name] / self.requests - kept[name]) / (rounds + 1)


def table(counted, earlier):
    """A line for each sidecar: medians, how far rounds are apart, and the change to an earlier count."""
    head = ["per request", "sidecar", "instructions", "spread", "allocations", "spread"]
    rows = [head + (["instructions before", "change", "allocations before", "change"] if earlier else [])]
    for one in counted:
        row = [one.title, one.side]
        before = earlier.get((one.walk, one.side))
        for values, number in ((one.instructions, ",.0f"), (one.allocations, ",.2f")):
            row += [format(statistics.median(values), number), _spread(values)]
        for key, values, number in (("instructions", one.instructions, ",.0f"),
                                    ("allocations", one.allocations, ",.2f")):
            if before:
                row += [format(before[key], number), _change(statistics.median(values), before[key])]
            elif earlier:
                row += ["-", ""]
        rows.append(row)
    return align(rows)


def functions(counted, earlier, count):
    """The functions with the most instructions of their own, for each sidecar; who copies, and who allocates."""
    blocks = []
    for one in counted:
        before = earlier.get((one.walk, one.side), {})
        for key, values, title, number in (
                ("functions", one.functions, "instructions of its own", ",.0f"),
                ("copying", one.copying, "instructions of memcpy for", ",.0f"),
                ("allocating", one.allocating, "allocations by", ",.2f")):
            blocks.append(f"{one.title}, {one.side}: {title}\n" + _ranked(values, before.get(key), count, number))
    return "\n" + "\n\n".join(blocks)


def _ranked(values, before, count, number):
    """The largest, their share of all, and what they were."""
    rows, total = [], values.total()
    for name, value in values.most_common(count):
        row = [format(value, number), f"{value / total:.1%}"]
        if before is not None:
            row.append(f"was {before[name]:{number}}" if name in before else "was -")
        rows.append([*row, name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return "\n".join("  ".join([*(cell.rjust(width) for cell, width in zip(row, widths)), row[-1]]) for row in rows)


def _spread(values):
    """Of all rounds, as a share of the median."""
    middle = statistics.median(values)
    return f"{(max(values) - min(values)) / middle:.1%}" if middle else "0.0%"


def _change(now, before):
    return f"{now / before - 1:+.1%}" if before else "-"


def as_json(counted, given):
    """Everything but the functions that hardly count."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "machine": machine(),
        "requests": given.requests, "rounds": given.rounds,
        "counted": [{
            "walk": one.walk, "title": one.title, "sidecar": one.side, "requests": one.requests,
            "instructions": statistics.median(one.instructions), "instructions_rounds": one.instructions,
            "allocations": statistics.median(one.allocations), "allocations_rounds": one.allocations,
            "allocations_by": dict(one.calls.most_common()),
            "functions": dict(one.functions.most_common(_KEPT_FUNCTIONS)),
            "copying": dict(one.copying.most_common(_KEPT_FUNCTIONS)),
            "allocating": dict(one.allocating.most_common(_KEPT_FUNCTIONS))} for one in counted]}


def load(path):
    """An earlier JSON, by walk and sidecar."""
    try:
        return {(one["walk"], one["sidecar"]): one for one in json.loads(path.read_text())["counted"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"--against {path}: {error!r}") from error
