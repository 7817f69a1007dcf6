"""Contenders of a scenario take turns, A B C A B C, so that a noisy minute hits all of them."""

import dataclasses
import statistics
import sys

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


def compare(scenario, lab, workers, rounds, requests):
    """Starts all contenders, lets them take turns, ends them; returns a result for each."""
    results = {name: Result(scenario, name, workers, {}) for name in scenario.contenders}
    running = {}

    def failed(name, error):
        results[name].failure = str(error)
        print(f"{scenario.name}, {workers} worker(s): {error}", file=sys.stderr)
        running.pop(name)[0].stop()

    try:
        for name, start in scenario.contenders.items():
            it = Contender(name, lab, workers)
            running[name] = (it, 0.0)
            try:
                start(it)
                running[name] = (it, scenario.warm_up(it))
            except Failure as error:
                failed(name, error)
        for number in range(1, rounds + 1):
            for name, (it, rate) in list(running.items()):
                _progress(f"{scenario.name}: round {number} of {rounds}, {name}")
                try:
                    for key, value in scenario.measure(it, rate, requests).items():
                        results[name].samples.setdefault(key, []).append(value)
                except Failure as error:
                    failed(name, error)
    finally:
        _progress("")
        for it, _rate in running.values():
            it.stop()
    return list(results.values())


def _progress(text):
    """One line that is written over, where somebody is watching."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
