"""Envoy as a sidecar: router, retries, outlier detection and statistics on, circuit breakers open as Istio has them."""

import json

from lab import ports
from lab.process import Process
from lab.tools import envoy

_API = "type.googleapis.com/envoy.extensions"
_OPEN = 2**32 - 1


def one_hop(it):
    """HTTP/1.1 or HTTP/2 in, HTTP/1.1 out."""
    it.port = _start(it, "one hop", _http_filter(), _cluster(it.lab.back_end.http1))


def accepts_mutual_tls(it):
    """Mutual TLS in, HTTP/1.1 out without it."""
    it.tls = it.lab.certificates
    it.port = _start(it, "one hop", _http_filter(), _cluster(it.lab.back_end.http1), _accepts(it, []))


def pair(it, between):
    """HTTP/1.1 in and out, mutual TLS with `h2` or `http/1.1` between."""
    _pair(it, between, "http/1.1", it.lab.back_end.http1)


def pair_http2(it, back_end="http2"):
    """HTTP/2 from the client to the back end, to a port of it."""
    _pair(it, "h2", "h2", getattr(it.lab.back_end, back_end))


def pair_tcp(it, back_end="http1"):
    """Mutual TLS that passes bytes on, to a port of the back end."""
    next_port = getattr(it.lab.back_end, back_end)
    middle = _start(it, "server", _tcp_filter(), _cluster(next_port, None), _accepts(it, []))
    it.port = _start(it, "client", _tcp_filter(), _cluster(middle, None, _connects(it, [])))


def _pair(it, between, last, next_port):
    middle = _start(it, "server", _http_filter(), _cluster(next_port, last), _accepts(it, [between]))
    it.port = _start(it, "client", _http_filter(), _cluster(middle, between, _connects(it, [between])))


def _start(it, part, network_filter, cluster, tls=None):
    """Writes the configuration of one Envoy, starts it, and returns its port."""
    port = ports.free_port()
    chain = {"filters": [network_filter], **({"transport_socket": tls} if tls else {})}
    listener = {"name": "in", "address": _address(port), "filter_chains": [chain]}
    config = it.write(f"{part.replace(' ', '-')}.json", json.dumps({
        "node": {"id": it.name, "cluster": "bench"},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }, indent=1))
    process = it.proxy(Process(f"{it.name}: {part}", [
        envoy(), "-c", config, "--concurrency", str(it.workers), "--disable-hot-restart", "-l", "warning"]))
    ports.wait_until_listening(process, port)
    return port


def _http_filter():
    retries = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s", "retry_policy": retries}}
    return {"name": "http", "typed_config": {
        "@type": f"{_API}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_API}.filters.http.router.v3.Router"}}],
    }}


def _tcp_filter():
    return {"name": "tcp", "typed_config": {
        "@type": f"{_API}.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "in", "cluster": "next"}}


def _cluster(port, protocol="http/1.1", tls=None):
    """The next hop; `protocol` is h2, http/1.1, or None for TCP."""
    endpoint = {"endpoint": {"address": _address(port)}}
    cluster = {
        "name": "next", "type": "STATIC", "connect_timeout": "5s", "outlier_detection": {},
        "circuit_breakers": {"thresholds": [{
            "max_connections": _OPEN, "max_pending_requests": _OPEN, "max_requests": _OPEN, "max_retries": _OPEN}]},
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if protocol:
        kind = {"h2": "http2_protocol_options", "http/1.1": "http_protocol_options"}[protocol]
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster["typed_extension_protocol_options"] = {options: {
            "@type": f"type.googleapis.com/{options}", "explicit_http_config": {kind: {}}}}
    if tls:
        cluster["transport_socket"] = tls
    return cluster


def _accepts(it, alpn):
    certificates = it.lab.certificates
    common = _tls(certificates.server, certificates.root, certificates.client.spiffe, alpn)
    return {"name": "tls", "typed_config": {
        "@type": f"{_API}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True, "common_tls_context": common}}


def _connects(it, alpn):
    certificates = it.lab.certificates
    common = _tls(certificates.client, certificates.root, certificates.server.spiffe, alpn)
    return {"name": "tls", "typed_config": {
        "@type": f"{_API}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": certificates.server.name, "common_tls_context": common}}


def _tls(own, root, peer, alpn):
    return {
        "alpn_protocols": alpn,
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": str(own.certificate)}, "private_key": {"filename": str(own.key)}}],
        "validation_context": {
            "trusted_ca": {"filename": str(root)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]},
    }


def _address(port):
    return {"socket_address": {"address": ports.HOST, "port_value": port}}
