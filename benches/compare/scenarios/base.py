"""What a scenario is, and the two ways in which most of them measure."""

import dataclasses
import time
from collections.abc import Callable

from lab import ports
from lab.backend import BODY
from lab.contender import Contender
from lab.load import H2_CONNECTIONS, h2load, wrk
from lab.process import Failure

_WARM_UP_SECONDS = 1
_FIRST_REQUESTS, _WARM_UP_REQUESTS = 64, 2_000


@dataclasses.dataclass(frozen=True)
class Figure:
    """One thing that is measured."""

    key: str
    title: str
    digits: int = 2
    added: bool = False
    """Whether contenders are compared by what they add to no proxy's value."""


CPU = Figure("cpu", "CPU s/100k")
RATE = Figure("rate", "requests/s", 0)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One row of the comparison: who takes part, and what one round of it is."""

    name: str
    title: str
    contenders: dict[str, Callable[[Contender], None]]
    """Starts one; in the order in which they take turns."""
    warm_up: Callable[[Contender], float]
    """Checks that it answers rightly, warms it up, and returns a rate for sizing rounds."""
    measure: Callable[[Contender, float, int], dict[str, float]]
    """One round: the contender, the rate of the warm-up, about how many requests; returns a value for each figure."""
    figures: tuple[Figure, ...] = (CPU, RATE)
    main: Figure = CPU
    """What the chart shows and what contenders are compared by; less is better."""
    fresh: bool = False
    """Whether contenders are started for each round, because a round leaves traces in them."""
    recordable: bool = True
    """Whether a flame graph can be made: not of processes that a round itself starts."""


def warm_up_http1(it):
    """One checked answer, then a second of load."""
    body = ports.wait_for_answer(it.counted[0], it.port, host=it.host)
    if body != BODY:
        raise Failure(f"{it.name}: the answer is not the back end's: {len(body)} bytes, {body[:80]!r}")
    return wrk(it.name, it.port, it.host, _WARM_UP_SECONDS).rate


def measure_http1(it, rate, requests):
    """wrk on kept connections, for about so many requests."""
    return per_100k(it, lambda: wrk(it.name, it.port, it.host, whole_seconds(rate, requests)))


def warm_up_http2(it, connections=H2_CONNECTIONS):
    """A few requests until all succeed, then a short load."""
    return warmed_up(lambda requests: h2load(it.name, it.port, it.host, requests, connections=connections))


def warmed_up(load, requests=_WARM_UP_REQUESTS):
    """Runs a load of few requests until it succeeds, then a short one, and returns its rate."""
    end = time.monotonic() + 10
    while True:
        try:
            load(_FIRST_REQUESTS)
            break
        except Failure:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)
    return load(requests).rate


def measure_http2(it, _rate, requests, connections=H2_CONNECTIONS):
    """h2load for so many requests."""
    return per_100k(it, lambda: h2load(it.name, it.port, it.host, requests, connections=connections))


def per_100k(it, load):
    """Runs a load and returns the CPU time of the contender for 100,000 of its requests, and the rate."""
    before = it.cpu_seconds()
    seen = load()
    return {"cpu": (it.cpu_seconds() - before) / seen.requests * 100_000, "rate": seen.rate}


def whole_seconds(rate, requests):
    """For how long wrk, which knows only whole seconds, has to run."""
    return max(1, round(requests / rate))
