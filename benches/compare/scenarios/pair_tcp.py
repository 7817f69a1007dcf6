"""Two sidecars with mutual TLS between them that know nothing but bytes: many short connections, and one long one.

Certificates and handshakes are a peer's own: Pillion's key exchange is post-quantum (X25519MLKEM768), theirs is not.
"""

import time
from functools import partial

from lab.backend import BULK_BYTES, BULK_PATH
from lab.load import wrk
from lab.upload import upload
from peers import direct, envoy, haproxy, nginx, pillion
from scenarios.base import Figure, Scenario, measure_http1, per_100k, warm_up_http1, whole_seconds


def _peers(no_proxy, back_end):
    """All of them, in front of a port of the back end."""
    pairs = {"pillion": pillion.pair_tcp, "envoy": envoy.pair_tcp, "haproxy": haproxy.pair_tcp, "nginx": nginx.pair_tcp}
    return {"no proxy": no_proxy, **{name: partial(pair, back_end=back_end) for name, pair in pairs.items()}}


_PEERS = _peers(direct.http1, "http1")
_NEW_CONNECTIONS_SECONDS = 1
_BULK_CONNECTIONS = 4
_BULK_TITLE = f"TCP pair with mutual TLS, {BULK_BYTES // 2**20} MiB {{}}, {_BULK_CONNECTIONS} connections"
_CPU_PER_GIB = Figure("cpu", "CPU s/GiB")
_BULK_FIGURES = (_CPU_PER_GIB, Figure("rate", "MiB/s", 0))


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
    return _per_gib(it.cpu_seconds() - before, carried, seen)


def _measure_bulk_up(it, _rate, requests):
    """The same amount the other way."""
    before = it.cpu_seconds()
    seen = upload(it.name, it.port, it.host, whole_seconds(10_000, requests), _BULK_CONNECTIONS)
    return _per_gib(it.cpu_seconds() - before, seen.requests * BULK_BYTES, seen)


def _per_gib(cpu_seconds, carried, seen):
    return {"cpu": cpu_seconds / carried * 2**30, "rate": seen.bytes_per_second / 2**20}


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
    title=_BULK_TITLE.format("down"),
    contenders=_PEERS, warm_up=warm_up_http1, measure=_measure_bulk, figures=_BULK_FIGURES, main=_CPU_PER_GIB,
)
BULK_UP = Scenario(
    name="tcp-bulk-up",
    title=_BULK_TITLE.format("up"),
    contenders=_peers(direct.upload, "upload"), warm_up=warm_up_http1, measure=_measure_bulk_up,
    figures=_BULK_FIGURES, main=_CPU_PER_GIB,
)
