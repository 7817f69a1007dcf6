"""Resident memory of the largest process: after its first answers, and with connections that do nothing.

The settings that bound memory are the peers' own. In a pair both proxies carry every connection.
"""

import time

from lab.idle import IdleConnections
from lab.ports import wait_for_answer
from peers import envoy, haproxy, nginx, pillion
from scenarios.base import Figure, Scenario

_CONNECTIONS = (1_000, 5_000)
# Long enough for what gives memory back when a connection falls idle.
_SETTLE_SECONDS = 2
_MAIN = Figure("idle-5000", "MiB, 5,000 idle", 1)
_FIGURES = (Figure("idle-0", "MiB, none", 1), Figure("idle-1000", "MiB, 1,000 idle", 1), _MAIN)


def _first_answer(it):
    wait_for_answer(it.counted[0], it.port, host=it.host)
    return 0.0


def _measure(it, _rate, _requests):
    figures = {"idle-0": _settled_mib(it)}
    with IdleConnections(it.name, it.port, it.host) as connections:
        for count in _CONNECTIONS:
            connections.grow_to(count)
            figures[f"idle-{count}"] = _settled_mib(it)
    return figures


def _settled_mib(it):
    time.sleep(_SETTLE_SECONDS)
    return max(process.resident_bytes() for process in it.counted) / 2**20


HTTP = Scenario(
    name="memory-http",
    title="Resident memory, one hop, HTTP/1.1",
    contenders={"pillion": pillion.one_hop, "envoy": envoy.one_hop, "haproxy": haproxy.one_hop, "nginx": nginx.one_hop},
    warm_up=_first_answer, measure=_measure, figures=_FIGURES, main=_MAIN, fresh=True,
)
TCP = Scenario(
    name="memory-tcp",
    title="Resident memory, TCP pair with mutual TLS",
    contenders={
        "pillion": pillion.pair_tcp,
        "envoy": envoy.pair_tcp,
        "haproxy": haproxy.pair_tcp,
        "nginx": nginx.pair_tcp,
    },
    warm_up=_first_answer, measure=_measure, figures=_FIGURES, main=_MAIN, fresh=True,
)
