"""An HTTP/2 client with prior knowledge that does one thing at a time, and says what was wrong.

Header blocks that come in are not decoded: an answer of 200 begins with the one byte that HPACK has for it, and whoever
wants to know more of another answer gets its block as it came.
"""

import dataclasses
import socket

from lab.http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, Connection, header_block
from lab.ports import HOST

_STATUS_200 = 0x88
_LARGEST_FRAME = 16_384


class WrongAnswer(Exception):
    """The peer did something else than answer with 200."""


@dataclasses.dataclass
class Stream:
    """One request and what came back for it so far."""

    number: int
    answered: bool = False
    """Whether the head of the answer is there."""
    ended: bool = False
    body: bytearray = dataclasses.field(default_factory=bytearray)
    trailers: bytes = b""
    """Header block of the trailers, not decoded."""


class Caller:
    """A connection. Raises OSError or EOFError when it is lost, ValueError and WrongAnswer for any other bad end."""

    def __init__(self, port, timeout=30.0):
        self._connection = Connection(socket.create_connection((HOST, port), timeout=timeout), PREFACE)
        self._connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.flush()
        self._streams = {}
        self._next = 1
        self._table = _Table()

    def get(self, path, authority, fields=()):
        """One GET; returns the body."""
        return bytes(self.finish(self.open("GET", path, authority, fields, end=True)).body)

    def open(self, method, path, authority, fields=(), end=False):
        """Sends the head of a request; `end` says that nothing follows."""
        stream = self._streams[self._next] = Stream(self._next)
        self._next += 2
        block = b"".join(self._table.encode(name, value) for name, value in (
            (":method", method), (":scheme", "http"), (":path", path), (":authority", authority), *fields))
        self._connection.write(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream.number, block)
        self._connection.flush()
        return stream

    def send(self, stream, data):
        """Sends a part of the request's body, as the peer has room for it."""
        rest = bytes(data)
        while rest:
            room = min(len(rest), self._connection.room(stream.number), _LARGEST_FRAME)
            if room > 0:
                self._connection.write(DATA, 0, stream.number, rest[:room])
                self._connection.flush()
                rest = rest[room:]
            elif stream.ended:
                raise WrongAnswer(f"stream {stream.number} was answered with {len(rest)} of {len(data)} bytes not sent")
            else:
                self._read()

    def end(self, stream):
        """Nothing more comes in the request's body; waits for the end of the answer."""
        self._connection.write(DATA, END_STREAM, stream.number)
        self._connection.flush()
        return self.finish(stream)

    def receive(self, stream, size):
        """Waits until the answer's body has that many bytes; takes them out of it."""
        while len(stream.body) < size:
            if stream.ended:
                raise WrongAnswer(f"stream {stream.number} ended with {len(stream.body)} of {size} bytes")
            self._read()
        taken = bytes(stream.body[:size])
        del stream.body[:size]
        return taken

    def finish(self, stream):
        """Waits for the end of the answer."""
        while not stream.ended:
            self._read()
        return stream

    def close(self):
        """Ends the connection, whatever is in flight."""
        self._connection.socket.close()

    def _read(self):
        for kind, flags, number, payload in self._connection.read():
            stream = self._streams[number]
            if kind == RST_STREAM:
                raise WrongAnswer(f"stream {number} was reset with code {int.from_bytes(payload)}")
            if kind == DATA:
                stream.body += payload
            elif stream.answered:
                stream.trailers = payload
            elif payload[:1] != bytes([_STATUS_200]):
                raise WrongAnswer(f"stream {number} was not answered with 200; header block {payload!r}")
            stream.answered = True
            if flags & END_STREAM:
                stream.ended = True
                del self._streams[number]
        self._connection.flush()


class _Table:
    """HPACK (RFC 7541) as clients use it: what was sent once on a connection is one or two bytes from then on."""

    _STATIC = {(":method", "GET"): 2, (":method", "POST"): 3, (":path", "/"): 4, (":scheme", "http"): 6}
    _FIRST, _SIZE, _OVERHEAD = 62, 4_096, 32

    def __init__(self):
        self._numbers = {}
        self._left = self._SIZE

    def encode(self, name, value):
        """One field, and keeps it while there is room: nothing is ever put out of the table."""
        static = self._STATIC.get((name, value))
        if static:
            return bytes([0x80 | static])
        number = self._numbers.get((name, value))
        if number is not None:
            # The one that came last is the first. One byte has room for 65 of them.
            return bytes([0x80 | self._FIRST + len(self._numbers) - 1 - number])
        literal = header_block([(name, value)])
        self._left -= len(name) + len(value) + self._OVERHEAD
        if self._left < 0 or self._FIRST + len(self._numbers) >= 127:
            return literal
        self._numbers[name, value] = len(self._numbers)
        return b"\x40" + literal[1:]
