"""haproxy as a sidecar: retries and error observation on, no log."""

from lab import ports
from lab.process import Process
from lab.tools import find

_CONFIG = """\
global
  nbthread {threads}
  stats socket {socket} level admin
defaults
  mode {mode}
  retries 3
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-request 10s
frontend in
  bind 127.0.0.1:{port} backlog 4096 {bind}
  default_backend out
backend out
{reuse}  server next 127.0.0.1:{next_port} check observe {layer} error-limit 50 on-error mark-down {server}
"""


def one_hop(it):
    """HTTP/1.1 in and out."""
    it.port = _start(it, "one hop", it.lab.back_end.http1)


def one_hop_http2(it):
    """HTTP/2 in, HTTP/1.1 out."""
    it.port = _start(it, "one hop", it.lab.back_end.http1, bind="proto h2")


def accepts_mutual_tls(it):
    """Mutual TLS in, HTTP/1.1 out without it."""
    it.tls = it.lab.certificates
    accepts, _ = _tls(it, None)
    it.port = _start(it, "one hop", it.lab.back_end.http1, bind=accepts)


def pair(it, between):
    """HTTP/1.1 in and out, mutual TLS with `h2` or `http/1.1` between."""
    _pair(it, between)


def pair_http2(it, back_end="http2"):
    """HTTP/2 from the client to the back end, to a port of it."""
    _pair(it, "h2", bind="proto h2", server="proto h2", next_port=getattr(it.lab.back_end, back_end))


def pair_tcp(it, back_end="http1"):
    """Mutual TLS that passes bytes on, to a port of the back end."""
    _pair(it, None, mode="tcp", next_port=getattr(it.lab.back_end, back_end))


def _pair(it, between, bind="", server="", next_port=None, mode="http"):
    accepts, connects = _tls(it, between)
    middle = _start(it, "server", next_port or it.lab.back_end.http1, bind=accepts, server=server, mode=mode)
    it.port = _start(it, "client", middle, bind=bind, server=connects, mode=mode)


def _tls(it, between):
    """What the sides of a connection with mutual TLS have to say: who accepts it, who makes it."""
    certificates = it.lab.certificates
    alpn = f" alpn {between}" if between else ""
    tls = f"ca-file {certificates.root} verify required ssl-min-ver TLSv1.3{alpn}"
    name = certificates.server.name
    return (f"ssl crt {certificates.server.both} {tls}",
            f"ssl crt {certificates.client.both} {tls} verifyhost {name} sni str({name})")


def _start(it, part, next_port, bind="", server="", mode="http"):
    port = ports.free_port()
    config = it.write(f"{part.replace(' ', '-')}.cfg", _CONFIG.format(
        threads=it.workers, socket=it.folder("stats.sock"), mode=mode, port=port, next_port=next_port, bind=bind,
        server=server, layer="layer7" if mode == "http" else "layer4",
        reuse="  http-reuse always\n" if mode == "http" else ""))
    process = it.proxy(Process(f"{it.name}: {part}", [find("haproxy"), "-db", "-q", "-f", config]))
    ports.wait_until_listening(process, port)
    return port
