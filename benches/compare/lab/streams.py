"""gRPC streams that last: on each a message goes out, and the next when its echo is back."""

import selectors
import socket
import struct
import time

from lab.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, Connection, header_block
from lab.load import Load
from lab.ports import HOST
from lab.process import Failure

METHOD = "/bench.Echo/Talk"
_TEXT = b"a small message, as a chat or a price has it, of 64 bytes in all"
MESSAGE = struct.pack(">BI", 0, len(_TEXT)) + _TEXT
"""As gRPC frames it: not compressed, how long."""
_PATIENCE_SECONDS = 15


def stream(who, port, host, messages, connections):
    """At least so many messages and their echoes over all streams; a rate of messages that came back."""
    count, at_once = connections
    each = -(-messages // (count * at_once))
    with selectors.DefaultSelector() as waiting:
        callers = []
        start = time.monotonic()
        try:
            for _ in range(count):
                callers.append(_Caller(port, host, at_once, each))
                waiting.register(callers[-1].connection.socket, selectors.EVENT_READ, callers[-1])
            _until_all_ended(waiting, callers)
        except (OSError, EOFError, ValueError) as error:
            raise Failure(f"{who}: {count} x {at_once} gRPC streams through port {port}: {error}") from error
        finally:
            for caller in callers:
                caller.connection.socket.close()
    return Load(each * count * at_once, each * count * at_once / (time.monotonic() - start))


def _until_all_ended(waiting, callers):
    while any(caller.open for caller in callers):
        ready = waiting.select(_PATIENCE_SECONDS)
        if not ready:
            raise ValueError(f"nothing came for {_PATIENCE_SECONDS} s; {sum(c.open for c in callers)} streams open")
        for key, _ in ready:
            if key.data.open:
                key.data.serve()


class _Caller:
    """One connection with its streams: how many messages each has before it, and what of an echo has come."""

    def __init__(self, port, host, streams, each):
        self.connection = Connection(socket.create_connection((HOST, port), timeout=_PATIENCE_SECONDS), PREFACE)
        self.connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.open = streams
        self._left = {2 * number + 1: each for number in range(streams)}
        self._come = dict.fromkeys(self._left, b"")
        head = header_block([
            (":method", "POST"), (":scheme", "http"), (":authority", host), (":path", METHOD),
            ("content-type", "application/grpc"), ("te", "trailers")])
        for number in self._left:
            self.connection.write(HEADERS, END_HEADERS, number, head)
            self.connection.write(DATA, 0, number, MESSAGE)
        self.connection.flush()

    def serve(self):
        """Takes the echoes that have come, and sends the next messages in one write."""
        for kind, flags, number, payload in self.connection.read():
            if kind == RST_STREAM:
                raise ValueError(f"stream {number} was reset with {self._left[number]} messages left: {payload!r}")
            if kind == DATA and payload:
                self._echoed(number, self._come[number] + payload)
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                if self._left[number]:
                    raise ValueError(f"stream {number} ended {self._left[number]} messages too early")
                self.open -= 1
        self.connection.flush()

    def _echoed(self, number, come):
        """Part of an echo, or one: a proxy may cut and join what it passes on."""
        self._come[number] = come
        if len(come) < len(MESSAGE):
            return
        if come != MESSAGE:
            raise ValueError(f"stream {number}: not what was sent: {come[:100]!r}")
        self._come[number] = b""
        self._left[number] -= 1
        if self._left[number]:
            self.connection.write(DATA, 0, number, MESSAGE)
        else:
            self.connection.write(DATA, END_STREAM, number)
