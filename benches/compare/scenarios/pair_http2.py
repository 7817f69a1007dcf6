"""Two sidecars with mutual TLS between them; HTTP/2 from the client to the back end.

nginx takes no part: it has no HTTP/2 to the next hop.
"""

from peers import direct, envoy, haproxy, pillion
from scenarios.base import Scenario, measure_http2, warm_up_http2

SCENARIO = Scenario(
    name="pair-http2",
    title="Pair with mutual TLS, HTTP/2 end to end",
    contenders={
        "no proxy": direct.http2,
        "pillion": pillion.pair_http2,
        "envoy": envoy.pair_http2,
        "haproxy": haproxy.pair_http2,
    },
    warm_up=warm_up_http2,
    measure=measure_http2,
)
