"""What is counted: arrangements of sidecars, and what a client sends through them, one request after the other."""

import contextlib
import dataclasses
import socket
from collections.abc import Callable

from lab.backend import BODY
from lab.caller import Caller, WrongAnswer
from lab.constant import ask
from lab.contender import Contender
from lab.ports import HOST
from lab.process import Failure
from peers import pillion


@dataclasses.dataclass(frozen=True)
class Walk:
    """One arrangement and its client."""

    name: str
    title: str
    start: Callable[[Contender], None]
    """Starts it; the process nearest to the client comes first."""
    client: Callable
    """Takes the contender; a context manager that gives a function which sends one request and takes its answer."""
    share: float = 1.0
    """How many requests it sends, by those that were asked for: where one is long, fewer do."""


@contextlib.contextmanager
def _kept(it):
    """HTTP/1.1, or bytes that look so, on one connection."""
    request = f"GET / HTTP/1.1\r\nHost: {it.host}\r\n\r\n".encode()
    with _connect(it) as connection:
        yield lambda: ask(connection, request)


@contextlib.contextmanager
def _new(it):
    """A connection for each request. The next one comes when the end of this one has gone through all sidecars."""
    request = f"GET / HTTP/1.1\r\nHost: {it.host}\r\n\r\n".encode()

    def request_and_end():
        with _connect(it) as connection:
            ask(connection, request)
            connection.shutdown(socket.SHUT_WR)
            if connection.recv(1):
                raise ValueError("bytes after the answer")

    yield request_and_end


@contextlib.contextmanager
def _http2(it):
    """HTTP/2 on one connection, one stream after the other."""
    client = Caller(it.port)

    def request():
        body = client.get("/", it.host)
        if body != BODY:
            raise ValueError(f"the answer is not the back end's: {body[:200]!r}")

    try:
        yield request
    finally:
        client.close()


def _connect(it):
    connection = socket.create_connection((HOST, it.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def send(it, request, count):
    """Sends so many, one after the other."""
    for number in range(count):
        try:
            request()
        except (OSError, EOFError, ValueError, WrongAnswer) as error:
            raise Failure(f"{it.name}: request {number + 1} of {count}: {error}") from error


ALL = [
    Walk("one-hop-http1", "one hop, HTTP/1.1", pillion.one_hop, _kept),
    Walk("one-hop-http2", "one hop, HTTP/2 in, HTTP/1.1 out", pillion.one_hop, _http2),
    Walk("pair-http1", "pair, mutual TLS, HTTP/1.1 in", pillion.pair, _kept),
    Walk("pair-http2", "pair, mutual TLS, HTTP/2 end to end", pillion.pair_http2, _http2),
    Walk("tcp-kept", "pair, mutual TLS, TCP, kept connection", pillion.pair_tcp, _kept),
    Walk("tcp-new", "pair, mutual TLS, TCP, new connection each", pillion.pair_tcp, _new, share=0.5),
]
