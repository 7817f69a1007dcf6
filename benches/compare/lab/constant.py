"""Requests at a constant rate, whatever the answers take: what somebody waits who comes when he comes.

A request goes out when it is due, on a connection that is free; its latency counts from that moment, also when it had
to wait because all connections were still waiting for answers.
"""

import collections
import gc
import select
import socket
import time

from lab.backend import BODY
from lab.ports import HOST
from lab.process import Failure

_CONNECTIONS = 32
_PATIENCE_SECONDS = 10


def latencies(who, port, host, rate, count):
    """Seconds of each of `count` HTTP/1.1 requests, sorted; kept connections take turns."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    connections, seen = [], []
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(_CONNECTIONS):
            connections.append(_Connection(port, request))
        _at_rate(collections.deque(connections), rate, count, seen)
    except (OSError, ValueError) as error:
        raise Failure(f"{who}: request {len(seen)} of {count} at {rate}/s to port {port}: {error}") from error
    finally:
        for connection in connections:
            connection.socket.close()
        if collects:
            gc.enable()
    return sorted(seen)


def _at_rate(free, rate, count, seen):
    """Sends what is due, takes what has come, and sleeps until there is more of either."""
    waiting, sent = {}, 0
    start = time.monotonic() + 0.01
    while len(seen) < count:
        now = time.monotonic()
        while free and sent < count and start + sent / rate <= now:
            connection = free.popleft()
            connection.ask(start + sent / rate)
            waiting[connection.socket] = connection
            sent += 1
        sends = free and sent < count
        ready, _, _ = select.select(waiting, [], [], start + sent / rate - now if sends else _PATIENCE_SECONDS)
        if not (ready or sends):
            raise ValueError(f"no answer for {_PATIENCE_SECONDS} s, {len(waiting)} are waited for")
        for readable in ready:
            if waiting[readable].answered():
                free.append(waiting.pop(readable))
                seen.append(time.monotonic() - free[-1].due)


class _Connection:
    """A kept connection, and when its request was due."""

    def __init__(self, port, request):
        self.socket = socket.create_connection((HOST, port), timeout=_PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self.ask(0.0)
        while not self.answered():
            pass

    def ask(self, due):
        """Sends the request."""
        self.due, self._answer = due, b""
        self.socket.sendall(self._request)

    def answered(self):
        """Takes what has come of the answer; whether it is whole, with the back end's body at its end."""
        part = self.socket.recv(8192)
        self._answer += part
        if not part or not b"HTTP/1.1 200".startswith(self._answer[:12]):
            raise ValueError(f"answered {self._answer[:200]!r}")
        return self._answer.endswith(BODY)


def ask(connection, request):
    """One request and its whole answer, which ends with the back end's body."""
    connection.sendall(request)
    answer = connection.recv(8192)
    while not answer.endswith(BODY):
        part = connection.recv(8192)
        if not part:
            raise ValueError(f"ended after {answer[:200]!r}")
        answer += part
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"answered {answer[:200]!r}")
