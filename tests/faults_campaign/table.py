"""What came out: successes and 99th percentiles as a table, everything as JSON."""

import collections
import dataclasses
import os
import pathlib

from faults_campaign.faults import VICTIM, Fault

_CONTENDERS = ("no mesh", "pillion")
_HEAD = ("fault", "no mesh: success", "p99", "during it", "p99", "back", "Pillion: success", "p99", "during it", "p99", "back")


@dataclasses.dataclass
class Result:
    """What became of the requests of one run, each `[due, seconds, failure, replica]`, and when the fault was."""

    begin: float
    end: float
    requests: list

    def success(self):
        """Percent of all."""
        return _success(self.requests)

    def success_during(self):
        """Percent of those that were due while the fault lasted."""
        return _success(self._during())

    def p99(self):
        """Seconds, of all, successes and failures."""
        return _p99(self.requests)

    def p99_during(self):
        """The same of those that were due while the fault lasted."""
        return _p99(self._during())

    def answered_before(self):
        """Who answered how many before the fault."""
        return collections.Counter(request[3] for request in self.requests if request[0] < self.begin)

    def back_after(self, replica):
        """Seconds from the end of the fault to the first answer of this replica; None when there was none."""
        moments = [request[0] + request[1] - self.end for request in self.requests
                   if request[3] == replica and request[0] >= self.end]
        return min(moments, default=None)

    def _during(self):
        return [request for request in self.requests if self.begin <= request[0] < self.end]

    def failures(self):
        """How many of which."""
        return collections.Counter(request[2] for request in self.requests if request[2])


@dataclasses.dataclass
class Row:
    """A fault, its results by contender, and what prevented more."""

    fault: Fault
    results: dict = dataclasses.field(default_factory=dict)
    failure: str = ""


def _success(requests):
    return 100 * sum(request[2] is None for request in requests) / max(1, len(requests))


def _p99(requests):
    seconds = sorted(request[1] for request in requests) or [0.0]
    return seconds[min(len(seconds) - 1, len(seconds) * 99 // 100)]


def text(rows):
    """The table as Markdown, which is readable as it is."""
    lines = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    lines.insert(1, ["-" * width for width in widths])
    shown = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines]
    failed = [f"{row.fault.name} could not be measured: {row.failure.splitlines()[0]}" for row in rows if row.failure]
    return "\n".join(shown + failed)


def _cells(row):
    cells = [f"`{row.fault.name}`"]
    for name in _CONTENDERS:
        result = row.results.get(name)
        cells += [f"{result.success():.1f} %", _time(result.p99()), f"{result.success_during():.1f} %",
                  _time(result.p99_during()), _back(result)] if result else ["-"] * 5
    return cells


def _back(result):
    after = result.back_after(VICTIM)
    return "not" if after is None else _time(after)


def failures(rows):
    """What the failures were, a line for each row that has any."""
    found = [(row.fault.name, name, result.failures()) for row in rows for name, result in row.results.items()]
    return "".join(f"{fault}, {name}: {', '.join(f'{count} x {what}' for what, count in counted.most_common())}\n"
                   for fault, name, counted in found if counted)


def _time(seconds):
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def as_json(rows):
    """Everything."""
    return [{"fault": row.fault.name, "what": row.fault.what, "failure": row.failure,
             **{name: _result(result) for name, result in row.results.items()}} for row in rows]


def _result(result):
    return {"success_percent": result.success(), "success_percent_during": result.success_during(),
            "p99_seconds": result.p99(), "p99_seconds_during": result.p99_during(),
            "back_after_seconds": result.back_after(VICTIM), "failures": result.failures(), "requests": result.requests}


def machine():
    """Processor, cores and kernel."""
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    return f"{model}, {os.cpu_count()} cores, Linux {os.uname().release}"
