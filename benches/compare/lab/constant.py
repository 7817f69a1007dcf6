"""Requests at a constant rate, whatever the answers take: what somebody waits who comes when he comes.

A request's latency counts from the moment when it was due: a slow answer also counts for those that it held up.
"""

import gc
import socket
import time

from lab.backend import BODY
from lab.ports import HOST
from lab.process import Failure

_CONNECTIONS = 8


def latencies(who, port, host, rate, count):
    """Seconds of each of `count` HTTP/1.1 requests, sorted; kept connections take turns."""
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    connections, seen = [], []
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(_CONNECTIONS):
            connections.append(socket.create_connection((HOST, port), timeout=10))
            connections[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ask(connections[-1], request)
        start = time.monotonic() + 0.01
        for number in range(count):
            due = start + number / rate
            left = due - time.monotonic()
            if left > 0:
                time.sleep(left)
            ask(connections[number % _CONNECTIONS], request)
            seen.append(time.monotonic() - due)
    except (OSError, ValueError) as error:
        raise Failure(f"{who}: request {len(seen)} of {count} at {rate}/s to port {port}: {error}") from error
    finally:
        for connection in connections:
            connection.close()
        if collects:
            gc.enable()
    return sorted(seen)


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
