"""Bulk from the client: the same body again and again on a few connections, each answered before the next begins."""

import socket
import threading
import time

from lab.backend import BODY, BULK_BYTES
from lab.load import Load
from lab.ports import HOST
from lab.process import Failure

_PART = b"\0" * 2**18


def upload(who, port, host, seconds, connections):
    """Sends for at least so many seconds; what was begun is finished. The sending itself is the kernel's work."""
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BULK_BYTES}\r\n\r\n".encode()
    start = time.monotonic()
    senders = [_Sender(port, head, start + seconds) for _ in range(connections)]
    for sender in senders:
        sender.join()
    wrong = next((sender.wrong for sender in senders if sender.wrong), None)
    if wrong:
        raise Failure(f"{who}: uploading {BULK_BYTES} bytes to port {port}: {wrong}") from wrong
    sent, took = sum(sender.sent for sender in senders), time.monotonic() - start
    return Load(sent, sent / took, sent * BULK_BYTES / took)


class _Sender(threading.Thread):
    """One connection and how many bodies went over it."""

    def __init__(self, port, head, end):
        super().__init__(daemon=True)
        self.sent, self.wrong = 0, None
        self._port, self._head, self._end = port, head, end
        self.start()

    def run(self):
        """Sends until the end."""
        try:
            with socket.create_connection((HOST, self._port), timeout=30) as connection:
                while time.monotonic() < self._end:
                    connection.sendall(self._head)
                    for _ in range(BULK_BYTES // len(_PART)):
                        connection.sendall(_PART)
                    _await_answer(connection)
                    self.sent += 1
        except (OSError, ValueError) as error:
            self.wrong = error


def _await_answer(connection):
    answer = b""
    while not answer.endswith(BODY):
        part = connection.recv(8192)
        if not part or not b"HTTP/1.1 200".startswith((answer + part)[:12]):
            raise ValueError(f"answered {answer + part[:200]!r}")
        answer += part
