"""Two sidecars with mutual TLS between them that know nothing but bytes: many short connections, and one long one.

Certificates and handshakes are a peer's own: Pillion's key exchange is post-quantum (X25519MLKEM768), theirs is not.
"""

import time

from lab.backend import BULK_BYTES, BULK_PATH
from lab.load import wrk
from peers import direct, envoy, haproxy, nginx, pillion
from scenarios.base import Figure, Scenario, measure_http1, per_100k, warm_up_http1, whole_seconds

_PEERS = {
    "no proxy": direct.http1,
    "pillion": pillion.pair_tcp,
    "envoy": envoy.pair_tcp,
    "haproxy": haproxy.pair_tcp,
    "nginx": nginx.pair_tcp,
}
_NEW_CONNECTIONS_SECONDS = 1
_BULK_CONNECTIONS = 4
_CPU_PER_GIB = Figure("cpu", "CPU s/GiB")


def _warm_up_new(it):
    warm_up_http1(it)
    return wrk(it.name, it.port, it.host, _NEW_CONNECTIONS_SECONDS, close=True).rate


def _measure_new(it, rate, requests):
    """A tenth of the requests: a connection costs what many requests cost."""
    seconds = whole_seconds(rate, requests / 10)
    return per_100k(it, lambda: wrk(it.name, it.port, it.host, seconds, close=True))


def _measure_bulk(it, _rate, requests):
    """The file again and again on a few connections, for as long as 10,000 requests a second would take."""
    before = it.cpu_seconds()
    seconds = whole_seconds(10_000, requests)
    start = time.monotonic()
    seen = wrk(it.name, it.port, it.host, seconds, path=BULK_PATH, connections=_BULK_CONNECTIONS)
    # Bytes of answers that were cut off by the end count too: the proxies have carried them.
    carried = seen.bytes_per_second * min(time.monotonic() - start, seconds)
    return {"cpu": (it.cpu_seconds() - before) / carried * 2**30, "rate": seen.bytes_per_second / 2**20}


KEPT = Scenario(
    name="tcp-kept",
    title="TCP pair with mutual TLS, requests on kept connections",
    contenders=_PEERS, warm_up=warm_up_http1, measure=measure_http1,
)
NEW = Scenario(
    name="tcp-new",
    title="TCP pair with mutual TLS, new connection each",
    contenders=_PEERS, warm_up=_warm_up_new, measure=_measure_new,
)
BULK = Scenario(
    name="tcp-bulk",
    title=f"TCP pair with mutual TLS, {BULK_BYTES // 2**20} MiB down, {_BULK_CONNECTIONS} connections",
    contenders=_PEERS, warm_up=warm_up_http1, measure=_measure_bulk,
    figures=(_CPU_PER_GIB, Figure("rate", "MiB/s", 0)), main=_CPU_PER_GIB,
)
