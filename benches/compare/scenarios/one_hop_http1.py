"""One sidecar, HTTP/1.1 in and out, nothing encrypted."""

from peers import direct, envoy, haproxy, nginx, pillion
from scenarios.base import Scenario, measure_http1, warm_up_http1

SCENARIO = Scenario(
    name="one-hop-http1",
    title="One hop, HTTP/1.1",
    contenders={
        "no proxy": direct.http1,
        "pillion": pillion.one_hop,
        "envoy": envoy.one_hop,
        "haproxy": haproxy.one_hop,
        "nginx": nginx.one_hop,
    },
    warm_up=warm_up_http1,
    measure=measure_http1,
)
