"""One proxy that ends mutual TLS: a connection, a full TLS 1.3 handshake with both certificates, a request, the end.

The client offers X25519 (OpenSSL 3.0), so that all contenders do the same key exchange.
"""

from lab import handshakes
from lab.process import Failure
from peers import envoy, haproxy, nginx, pillion
from scenarios.base import CPU, Figure, Scenario, per_100k, warmed_up

_WARM_UP = 200


def _warm_up(it):
    """Answers whoever has a certificate, and nobody without one."""
    rate = warmed_up(lambda count: _load(it, count), _WARM_UP)
    try:
        answer = handshakes.ask(handshakes.context(it.tls.root), it.port, it.host)
    except OSError:
        return rate
    if answer.startswith(b"HTTP/1.1 200"):
        raise Failure(f"{it.name}: port {it.port} answers to a client without a certificate")
    return rate


def _measure(it, _rate, requests):
    """A twentieth of the requests: a handshake costs what many requests cost, and the client more than that."""
    return per_100k(it, lambda: _load(it, max(requests // 20, 1)))


def _load(it, count):
    tls = handshakes.context(it.tls.root, it.tls.client)
    return handshakes.handshakes(it.name, tls, it.port, it.host, count)


SCENARIO = Scenario(
    name="handshake",
    title="One hop, mutual TLS in, new connection each",
    contenders={
        "pillion": pillion.accepts_mutual_tls,
        "envoy": envoy.accepts_mutual_tls,
        "haproxy": haproxy.accepts_mutual_tls,
        "nginx": nginx.accepts_mutual_tls,
    },
    warm_up=_warm_up, measure=_measure, figures=(CPU, Figure("rate", "connections/s", 0)),
)
