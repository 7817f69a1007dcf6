"""How long an answer takes at 1,000 requests a second through the pair with mutual TLS, HTTP/1.1 in.

What the proxies add is the difference to `no proxy`, which has the client's own share in it; by that they are compared.
"""

from lab.constant import latencies
from scenarios import pair_http1
from scenarios.base import Figure, Scenario, warm_up_http1

_RATE = 1_000
_MAIN = Figure("p50", "p50 µs", 0, added=True)


def _measure(it, _rate, requests):
    """A tenth of the requests: 50,000 would be 50 seconds."""
    seen = latencies(it.name, it.port, it.host, _RATE, max(requests // 10, 1_000))
    return {key: seen[int(len(seen) * share)] * 1e6 for key, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))}


SCENARIO = Scenario(
    name="latency",
    title="Latency at 1,000/s, pair with mutual TLS, HTTP/1.1 in",
    contenders=pair_http1.SCENARIO.contenders,
    warm_up=warm_up_http1,
    measure=_measure,
    figures=(_MAIN, Figure("p99", "p99 µs", 0, added=True), Figure("p999", "p99.9 µs", 0, added=True)),
    main=_MAIN,
)
