"""Contenders of a scenario take turns, A B C A B C, so that a noisy minute hits all of them."""

import dataclasses
import statistics
import sys

from flame import files
from lab.contender import Contender
from lab.process import Failure


@dataclasses.dataclass
class Result:
    """What one contender did in one scenario with a number of workers: samples by figure, or why there are none."""

    scenario: object
    contender: str
    workers: int
    samples: dict[str, list[float]]
    failure: str | None = None

    def median(self, figure):
        """Of a figure's samples."""
        return statistics.median(self.samples[figure.key])

    def has(self, figure):
        """Whether it was measured."""
        return bool(self.samples.get(figure.key))


# A round's requests are some hundred samples; a picture needs thousands.
_RECORDED = 4


def compare(scenario, lab, given, results):
    """Appends a result for each contender and number of workers, starts them all, lets them take turns, and ends them.

    `given` are the command's settings: `workers`, `rounds`, `requests`, `flame`. One that fails says why, and has no
    further turns. With a folder for flame graphs, Pillion has one turn more, which is recorded and does not count:
    recording costs time.
    """
    turns = [_Turns(scenario, name, start, lab, workers)
             for workers in given.workers for name, start in _contenders(scenario, lab)]
    results += [turn.result for turn in turns]
    try:
        if not scenario.fresh:
            for turn in turns:
                _progress(f"{scenario.name}: starting {turn}")
                turn.guarded(turn.start)
        for number in range(1, given.rounds + 1):
            for turn in turns:
                _progress(f"{scenario.name}: round {number} of {given.rounds}, {turn}")
                turn.guarded(lambda: turn.take(given.requests))
        for turn in turns if given.flame and scenario.recordable else []:
            if turn.name in lab.builds:
                _progress(f"{scenario.name}: recording {turn}")
                turn.guarded(lambda: turn.record(given.requests, given.flame))
    finally:
        _progress("")
        for turn in turns:
            turn.stop()


def _contenders(scenario, lab):
    """Names and how each is started: every build of Pillion stands for itself."""
    for name, start in scenario.contenders.items():
        for build in lab.builds if name == "pillion" else [name]:
            yield build, start


class _Turns:
    """One contender, its samples so far, and its processes while it runs."""

    def __init__(self, scenario, name, start, lab, workers):
        self.scenario, self.name, self._start, self._lab, self._workers = scenario, name, start, lab, workers
        self.result = Result(scenario, name, workers, {})
        self._running, self._rate = None, 0.0

    def __str__(self):
        return f"{self.name}, {counted(self._workers, 'worker')}"

    def start(self):
        """Starts it, checks that it answers, warms it up."""
        self._running = Contender(self.name, self._lab, self._workers)
        self._start(self._running)
        self._rate = self.scenario.warm_up(self._running)

    def take(self, requests):
        """One turn."""
        if self.scenario.fresh:
            self.start()
        for key, value in self.scenario.measure(self._running, self._rate, requests).items():
            self.result.samples.setdefault(key, []).append(value)
        if self.scenario.fresh:
            self.stop()

    def record(self, requests, folder):
        """One turn for a flame graph."""
        if self.scenario.fresh:
            self.start()
        workers = "" if self._workers == 1 else f"-{self._workers}-workers"
        name = f"{self.scenario.name}{workers}{self.name.removeprefix('pillion').replace(' ', '-')}"
        files.write(folder, name, f"{self.scenario.title}: {self}", self._running,
                    lambda: self.scenario.measure(self._running, self._rate, _RECORDED * requests))
        if self.scenario.fresh:
            self.stop()

    def guarded(self, act):
        """Does it unless an earlier step failed; a failure is printed and kept."""
        if self.result.failure is not None:
            return
        try:
            act()
        except Failure as error:
            self.result.failure = str(error)
            _progress("")
            print(f"{self.scenario.name}, {counted(self._workers, 'worker')}: {error}", file=sys.stderr)
            self.stop()

    def stop(self):
        """Ends its processes, if there are any."""
        if self._running is not None:
            self._running.stop()
            self._running = None


def counted(number, what):
    """1 worker, 2 workers."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _progress(text):
    """One line that is written over, where somebody is watching."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
