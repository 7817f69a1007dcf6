"""Two sidecars with mutual TLS between them; HTTP/2 from the client to the back end.

Few connections with many streams let a proxy write many frames at once; many connections with one stream do not.
nginx takes no part: it has no HTTP/2 to the next hop.
"""

from functools import partial

from lab.load import H2_CONNECTIONS, H2_SINGLE
from peers import direct, envoy, haproxy, pillion
from scenarios.base import Scenario, measure_http2, warm_up_http2

_TITLE = "Pair with mutual TLS, HTTP/2 end to end, {} x {}"
_PEERS = {
    "no proxy": direct.http2,
    "pillion": pillion.pair_http2,
    "envoy": envoy.pair_http2,
    "haproxy": haproxy.pair_http2,
}

SHARED = Scenario(
    name="pair-http2",
    title=_TITLE.format(*H2_CONNECTIONS),
    contenders=_PEERS, warm_up=warm_up_http2, measure=measure_http2,
)
SINGLE = Scenario(
    name="pair-http2-32x1",
    title=_TITLE.format(*H2_SINGLE),
    contenders=_PEERS,
    warm_up=partial(warm_up_http2, connections=H2_SINGLE), measure=partial(measure_http2, connections=H2_SINGLE),
)
