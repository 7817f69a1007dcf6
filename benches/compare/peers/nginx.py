"""nginx as a sidecar. It speaks HTTP/1.1 (or TCP) to the next hop, whatever comes in.

The number of requests on a kept connection is not limited (nginx says 1,000), as it is with no other contender.
"""

from lab import ports
from lab.nginx import start_nginx
from lab.tools import nginx_stream_module

_HTTP = """\
  keepalive_requests 1000000000;
  upstream next {{ server 127.0.0.1:{next_port}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port}{listen} backlog=4096;
{server}    location / {{
      proxy_pass {scheme}://next;
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Connection "";
{location}    }}
  }}
"""
_GRPC = """\
  keepalive_requests 1000000000;
  http2_max_concurrent_streams 1024;
  upstream next {{ server 127.0.0.1:{next_port}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port}{listen} http2 backlog=4096;
{server}    location / {{
      grpc_pass {scheme}://next;
      grpc_read_timeout 1h;
{location}    }}
  }}
"""
_STREAM = """\
stream {{
  server {{
    listen 127.0.0.1:{port}{listen} backlog=4096;
    proxy_pass 127.0.0.1:{next_port};
{server}  }}
}}
"""


def one_hop(it):
    """HTTP/1.1 in and out."""
    it.port = _http(it, "one hop", it.lab.back_end.http1)


def one_hop_http2(it):
    """HTTP/2 in, HTTP/1.1 out."""
    it.port = _http(it, "one hop", it.lab.back_end.http1, listen=" http2")


def accepts_mutual_tls(it):
    """Mutual TLS in, HTTP/1.1 out without it."""
    it.tls = it.lab.certificates
    it.port = _http(it, "one hop", it.lab.back_end.http1, listen=" ssl", server=_Tls(it).accepts)


def pair(it):
    """Two with mutual TLS and HTTP/1.1 between them."""
    tls = _Tls(it)
    between = _http(it, "server", it.lab.back_end.http1, listen=" ssl", server=tls.accepts)
    it.port = _http(it, "client", between, scheme="https", location=tls.connects)


def pair_grpc(it):
    """Two with mutual TLS that call the next hop by gRPC, a connection for each call at a time."""
    tls = _Tls(it)
    between = _http(it, "server", it.lab.back_end.grpc, _GRPC, listen=" ssl", server=tls.accepts, scheme="grpc")
    connects = tls.connects.replace("proxy_ssl", "grpc_ssl")
    it.port = _http(it, "client", between, _GRPC, scheme="grpcs", location=connects)


def pair_tcp(it, back_end="http1"):
    """Two with mutual TLS that pass bytes on, to a port of the back end."""
    tls = _Tls(it)
    between = _stream(it, "server", getattr(it.lab.back_end, back_end), listen=" ssl", server=tls.accepts)
    it.port = _stream(it, "client", between, server="    proxy_ssl on;\n" + tls.connects)


class _Tls:
    """The directives of both sides."""

    def __init__(self, it):
        certificates = it.lab.certificates
        client, server, root = certificates.client, certificates.server, certificates.root
        self.accepts = (
            f"    ssl_certificate {server.certificate};\n    ssl_certificate_key {server.key};\n"
            f"    ssl_protocols TLSv1.3;\n    ssl_verify_client on;\n    ssl_client_certificate {root};\n")
        self.connects = (
            f"    proxy_ssl_certificate {client.certificate};\n    proxy_ssl_certificate_key {client.key};\n"
            f"    proxy_ssl_protocols TLSv1.3;\n    proxy_ssl_verify on;\n"
            f"    proxy_ssl_trusted_certificate {root};\n"
            f"    proxy_ssl_server_name on;\n    proxy_ssl_name {server.name};\n")


def _http(it, part, next_port, template=_HTTP, listen="", server="", scheme="http", location=""):
    port = ports.free_port()
    text = template.format(
        port=port, next_port=next_port, listen=listen, server=server, scheme=scheme, location=location)
    return _start(it, part, port, http=text)


def _stream(it, part, next_port, listen="", server=""):
    port = ports.free_port()
    text = _STREAM.format(port=port, next_port=next_port, listen=listen, server=server)
    return _start(it, part, port, rest=text, modules=f"load_module {nginx_stream_module()};\n")


def _start(it, part, port, **blocks):
    process = it.proxy(start_nginx(f"{it.name}: {part}", it.folder(part), it.workers, **blocks))
    ports.wait_until_listening(process, port)
    return port
