"""gRPC through two sidecars with mutual TLS between them: calls with one message each way, and streams that last.

The back end says again what it hears. It is Python's, and so is the client of the streams: neither counts, but both
take time from the proxies, so that rates say less than elsewhere.
"""

from functools import partial

from lab.load import H2_CONNECTIONS, H2_SINGLE, grpc_unary
from lab.streams import stream
from peers import direct, envoy, haproxy, nginx, pillion
from scenarios.base import CPU, Figure, Scenario, per_100k, warmed_up

_PEERS = {
    "no proxy": direct.grpc,
    "pillion": pillion.pair_grpc,
    "envoy": partial(envoy.pair_http2, back_end="grpc"),
    "haproxy": partial(haproxy.pair_http2, back_end="grpc"),
    "nginx": nginx.pair_grpc,
}


def _unary(it, calls):
    return grpc_unary(it.name, it.port, it.host, calls, it.lab.back_end.message)


def _stream(it, messages):
    return stream(it.name, it.port, it.host, messages, H2_SINGLE)


def _scenario(name, title, rate, load):
    return Scenario(
        name=name, title=title, contenders=_PEERS, figures=(CPU, Figure("rate", rate, 0)),
        warm_up=lambda it: warmed_up(lambda count: load(it, count)),
        measure=lambda it, _rate, count: per_100k(it, lambda: load(it, count)))


UNARY = _scenario("grpc-unary", "gRPC pair with mutual TLS, unary, {} x {}".format(*H2_CONNECTIONS),
                  "calls/s", _unary)
STREAM = _scenario("grpc-stream", "gRPC pair with mutual TLS, messages on streams, {} x {}".format(*H2_SINGLE),
                   "echoes/s", _stream)
