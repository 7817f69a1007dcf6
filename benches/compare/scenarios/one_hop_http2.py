"""One sidecar, HTTP/2 without TLS in, HTTP/1.1 out."""

from peers import direct, envoy, haproxy, nginx, pillion
from scenarios.base import Scenario, measure_http2, warm_up_http2

SCENARIO = Scenario(
    name="one-hop-http2",
    title="One hop, HTTP/2 in",
    contenders={
        "no proxy": direct.http2,
        "pillion": pillion.one_hop,
        "envoy": envoy.one_hop,
        "haproxy": haproxy.one_hop_http2,
        "nginx": nginx.one_hop_http2,
    },
    warm_up=warm_up_http2,
    measure=measure_http2,
)
