"""Two sidecars with mutual TLS between them; HTTP/1.1 comes in and goes out, and each peer does its best between."""

from functools import partial

from peers import direct, envoy, haproxy, nginx, pillion
from scenarios.base import Scenario, measure_http1, warm_up_http1

SCENARIO = Scenario(
    name="pair-http1",
    title="Pair with mutual TLS, HTTP/1.1 in",
    contenders={
        "no proxy": direct.http1,
        "pillion": pillion.pair,
        "envoy, HTTP/2 between": partial(envoy.pair, between="h2"),
        "envoy, HTTP/1.1 between": partial(envoy.pair, between="http/1.1"),
        "haproxy, HTTP/2 between": partial(haproxy.pair, between="h2"),
        "haproxy, HTTP/1.1 between": partial(haproxy.pair, between="http/1.1"),
        "nginx, HTTP/1.1 between": nginx.pair,
    },
    warm_up=warm_up_http1,
    measure=measure_http1,
)
