"""What is printed, and what is kept as JSON."""

import dataclasses
import datetime
import statistics

from lab.mesh import metric_lines
from report import align, machine
from town import VERSIONS
from watch import quarter

_FAILURES_SHOWN = 50
_SHOWN = 15
_CALLERS_LEFT = ('"reason":"client_gone"', "Connection reset by peer (os error 104)")


def progress(tally, watch):
    """One line."""
    memory = ", ".join(f"{name} {watched.memory[-1] / 2**20:.1f} MiB {watched.descriptors[-1]} fds"
                       for name, watched in watch.watched.items() if watched.memory)
    return (f"{tally.seconds() / 60:5.1f} min: {tally.requests.total():,} requests, {len(tally.failed)} failed, "
            f"{', '.join(f'{count} {what}' for what, count in tally.changes.items())}; {memory}")


def faults(tally, watch, town):
    """Everything that must not be, in words; asked for while the processes still run."""
    found = [_failed(one) for one in tally.failed[:_FAILURES_SHOWN]]
    if len(tally.failed) > _FAILURES_SHOWN:
        found.append(f"and {len(tally.failed) - _FAILURES_SHOWN} more failures, which --json has")
    if tally.answers and len(tally.answers) < len(VERSIONS):
        found.append(f"only {', '.join(tally.answers)} has answered: the route does not do what it says")
    for name, process in town.watched.items():
        if process.exited() is not None:
            found.append(str(process.failure("has ended")))
            continue
        found += [f"{name}: {line}" for line in process.log() if "panicked" in line]
    found += still_open(town)
    for watched in watch.watched.values():
        found += watched.faults()
    return found


def still_open(town):
    """Connections that sidecars count as open, where all have been closed."""
    found = []
    for name, process in town.watched.items():
        if hasattr(process, "admin") and process.exited() is None:
            try:
                found += [f"{name}: after all traffic has ended: {line}"
                          for line in metric_lines(process, "pillion_connections_open{") if not line.endswith(" 0")]
            except OSError as error:
                found.append(str(process.failure(f"its metrics cannot be had: {error}")))
    return found


def last_lines(town):
    """What those that lived throughout have logged last."""
    blocks = [[f"last lines of {name}:", *(f"    | {line}" for line in _telling(process.log())[-_SHOWN:])]
              for name, process in town.watched.items()]
    return "\n\n".join("\n".join(block) for block in blocks)


def _telling(lines):
    """Log lines without those about callers that left, of which the traffic has many."""
    return [line for line in lines if not any(words in line for words in _CALLERS_LEFT)]


def table(tally, watch):
    """Traffic, then processes."""
    failed = {kind: sum(one.kind == kind for one in tally.failed) for kind in {one.kind for one in tally.failed}}
    rows = [["traffic", "succeeded", "failed"]]
    rows += [[kind, f"{tally.requests[kind]:,}", str(failed.get(kind, 0))]
             for kind in sorted(tally.requests.keys() | failed.keys())]
    rows.append(["all", f"{tally.requests.total():,}", str(len(tally.failed))])
    changes = ", ".join(f"{count:,} {what}" for what, count in sorted(tally.changes.items()))
    answers = ", ".join(f"{count:,} of {version}" for version, count in sorted(tally.answers.items()))
    return f"\n{align(rows)}\n\n{changes}; answers of HTTP/1.1 sessions: {answers}\n\n{_processes(watch)}"


def _processes(watch):
    rows = [["median MiB of quarters after warm-up:", "first", "second", "third", "last", "most",
             "fewest descriptors: before", "second", "last", "most", "after", "flat"]]
    for watched in watch.watched.values():
        memory = [f"{quarter(watched.memory, number, statistics.median) / 2**20:.1f}" for number in (1, 2, 3, 4)]
        descriptors = [str(quarter(watched.descriptors, number, min)) for number in (2, 4)]
        rows.append([watched.name, *memory, f"{max(watched.memory, default=0) / 2**20:.1f}",
                     str(watched.before), *descriptors, str(max(watched.descriptors, default=0)), str(watched.after),
                     "no" if watched.faults() else "yes"])
    return align(rows)


def _failed(one):
    meanwhile = "".join(f"\n    before: {event}" for event in one.meanwhile)
    return f"failed at {one.second:.2f} s ({one.at}): {one.kind}: {one.what}: {one.error}{meanwhile}"


def as_json(tally, watch, town, found, minutes):
    """Everything, and what those that lived throughout have logged."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "machine": machine(),
        "minutes": minutes, "faults": found, "requests": dict(tally.requests), "answers": dict(tally.answers),
        "changes": dict(tally.changes), "failed": [dataclasses.asdict(one) for one in tally.failed],
        "processes": [dataclasses.asdict(watched) for watched in watch.watched.values()],
        "logs": {name: _telling(process.log()) for name, process in town.watched.items()}}
