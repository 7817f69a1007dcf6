"""From the start of the process to the first answer that passed through it, and the size of the program.

Peers have their configuration in a file. Pillion asks its control plane, which runs, for certificate and routes.
"""

import time

from lab.ports import wait_for_answer
from peers import envoy, haproxy, nginx, pillion
from scenarios.base import Figure, Scenario

_MAIN = Figure("start", "ms to first answer", 0)


def _first_answer(it):
    wait_for_answer(it.counted[0], it.port, host=it.host)
    return 0.0


def _measure(it, _rate, _requests):
    it.counted[0].stop()
    start = time.monotonic()
    process = it.restart_proxy()
    wait_for_answer(process, it.port, host=it.host, pause=0.001)
    return {"start": (time.monotonic() - start) * 1000, "size": process.binary_bytes() / 2**20}


SCENARIO = Scenario(
    name="start",
    title="Start, one hop, HTTP/1.1",
    contenders={"pillion": pillion.one_hop, "envoy": envoy.one_hop, "haproxy": haproxy.one_hop, "nginx": nginx.one_hop},
    warm_up=_first_answer, measure=_measure, figures=(_MAIN, Figure("size", "binary MiB", 1)), main=_MAIN,
    recordable=False,
)
