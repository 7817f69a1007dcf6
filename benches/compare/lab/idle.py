"""Connections that do nothing: each has had one answer, and stays."""

import contextlib
import resource
import socket

from lab.backend import BODY
from lab.ports import HOST
from lab.process import Failure


class IdleConnections(contextlib.ExitStack):
    """Grows to a number of connections; closes them all at the end."""

    def __init__(self, who, port, host):
        super().__init__()
        self._who, self._port = who, port
        self._request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._count = 0

    def grow_to(self, count):
        """Opens connections, one after the other, until there are so many."""
        # A proxy has two descriptors for each.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit < 2 * count + 1000:
            raise Failure(f"{self._who}: {count} connections need `ulimit -n {2 * count + 1000}`, it is {limit}")
        while self._count < count:
            self._open()

    def _open(self):
        self._count += 1
        what = f"{self._who}: connection {self._count} to port {self._port}"
        try:
            connection = self.enter_context(socket.create_connection((HOST, self._port), timeout=20))
            connection.sendall(self._request)
            answer = b""
            while not answer.endswith(BODY):
                part = connection.recv(8192)
                if not part:
                    raise Failure(f"{what} ended after {len(answer)} bytes of its answer: {answer[:200]!r}")
                answer += part
        except OSError as error:
            raise Failure(f"{what}: {error}") from error
