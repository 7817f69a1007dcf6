"""A small HTTP/2 client with prior knowledge (RFC 9113): one connection that looks at every frame.

Header blocks that come in are not decoded: an answer of 200 begins with the one byte that HPACK has for it, and whoever
wants to know more of another answer gets its block as it came.
"""

import dataclasses
import socket
import struct

from lab import frames
from lab.ports import HOST


class Http2Error(Exception):
    """The peer did something else than answer with 200."""


@dataclasses.dataclass
class Stream:
    """One request and what came back for it so far."""

    number: int
    window: int
    """Bytes that the peer takes."""
    answered: bool = False
    """Whether the head of the answer is there."""
    ended: bool = False
    body: bytearray = dataclasses.field(default_factory=bytearray)
    trailers: bytes = b""
    """Header block of the trailers, not decoded."""


class Http2Client:
    """A connection; not for several threads. Raises OSError when it is lost and Http2Error for any other bad end."""

    def __init__(self, port, timeout=30.0):
        self._socket = socket.create_connection((HOST, port), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._streams = {}
        self._next = 1
        self._window, self._stream_window = frames.FIRST_WINDOW, frames.FIRST_WINDOW
        self._received = 0
        self._table = _Table()
        self.leaving = False
        """Whether the peer has said that it takes no further streams."""
        settings = struct.pack(">HI", frames.INITIAL_WINDOW_SIZE, frames.LARGEST_WINDOW)
        more = struct.pack(">I", frames.LARGEST_WINDOW - frames.FIRST_WINDOW)
        self._socket.sendall(frames.PREFACE + frames.frame(frames.SETTINGS, 0, 0, settings)
                             + frames.frame(frames.WINDOW_UPDATE, 0, 0, more))

    def get(self, path, authority, fields=()):
        """One GET; returns the body."""
        return bytes(self.finish(self.open("GET", path, authority, fields, end=True)).body)

    def open(self, method, path, authority, fields=(), end=False):
        """Sends the head of a request; `end` says that nothing follows."""
        block = b"".join(self._table.encode(name, value) for name, value in (
            (":method", method), (":scheme", "http"), (":path", path), (":authority", authority), *fields))
        stream = self._streams[self._next] = Stream(self._next, self._stream_window)
        self._next += 2
        flags = frames.END_HEADERS | (frames.END_STREAM if end else 0)
        self._socket.sendall(frames.frame(frames.HEADERS, flags, stream.number, block))
        return stream

    def send(self, stream, data, end=False):
        """Sends a part of the request's body, as the peer has room for it."""
        rest = memoryview(data)
        while True:
            room = min(len(rest), self._window, stream.window, frames.LARGEST_FRAME)
            if rest and not room:
                self._read_frame()
                if stream.ended:
                    raise Http2Error(f"stream {stream.number} was answered before its body of {len(data)} was sent")
                continue
            last = room == len(rest)
            flags = frames.END_STREAM if end and last else 0
            self._socket.sendall(frames.frame(frames.DATA, flags, stream.number, rest[:room]))
            self._window -= room
            stream.window -= room
            rest = rest[room:]
            if last:
                return

    def receive(self, stream, size):
        """Waits until the answer's body has that many bytes; takes them out of it."""
        while len(stream.body) < size:
            if stream.ended:
                raise Http2Error(f"stream {stream.number} ended with {len(stream.body)} of {size} bytes")
            self._read_frame()
        taken = bytes(stream.body[:size])
        del stream.body[:size]
        return taken

    def finish(self, stream):
        """Waits for the end of the answer."""
        while not stream.ended:
            self._read_frame()
        return stream

    def close(self):
        """Ends the connection, whatever is in flight."""
        self._socket.close()

    def _read_frame(self):
        length, kind, flags, number = frames.read_head(self._take(frames.HEAD_BYTES))
        payload = self._take(length)
        stream = self._streams.get(number)
        if kind == frames.DATA and stream:
            self._received_bytes(len(payload))
            stream.body += frames.without_padding(payload, flags)
        elif kind == frames.HEADERS and stream:
            self._received_head(stream, payload, flags)
        elif kind == frames.RST_STREAM:
            raise Http2Error(f"stream {number} was reset with code {int.from_bytes(payload)}")
        elif kind == frames.GOAWAY:
            self.leaving = True
            if int.from_bytes(payload[4:8]) or int.from_bytes(payload[:4]) < max(self._streams, default=0):
                raise Http2Error(f"GOAWAY after stream {int.from_bytes(payload[:4])} of {self._next - 2}, "
                                 f"code {int.from_bytes(payload[4:8])} {bytes(payload[8:])!r}")
        elif kind == frames.WINDOW_UPDATE and (number == 0 or stream):
            self._widen(stream, int.from_bytes(payload))
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._received_settings(payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self._socket.sendall(frames.frame(frames.PING, frames.ACK, 0, payload))
        if kind in (frames.DATA, frames.HEADERS) and flags & frames.END_STREAM and stream:
            stream.ended = True
            del self._streams[number]

    def _received_head(self, stream, payload, flags):
        block = frames.without_padding(payload, flags)[5 if flags & frames.PRIORITY else 0:]
        if not flags & frames.END_HEADERS:
            raise Http2Error(f"stream {stream.number}: an answer's head in several frames, which this client cannot read")
        if stream.answered:
            stream.trailers = bytes(block)
        elif not block or block[0] != frames.STATUS_200:
            raise Http2Error(f"stream {stream.number} was not answered with 200; header block {bytes(block)!r}")
        stream.answered = True

    def _received_bytes(self, count):
        """Gives the connection's window back when half of it is used."""
        self._received += count
        if self._received > frames.LARGEST_WINDOW // 2:
            self._socket.sendall(frames.frame(frames.WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
            self._received = 0

    def _received_settings(self, payload):
        for name, value in struct.iter_unpack(">HI", payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
        self._socket.sendall(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _widen(self, stream, count):
        if stream:
            stream.window += count
        else:
            self._window += count

    def _take(self, count):
        while len(self._buffer) < count:
            part = self._socket.recv(2**18)
            if not part:
                raise ConnectionError("the connection ended")
            self._buffer += part
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


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
            return frames.integer(0x80, 7, self._FIRST + len(self._numbers) - 1 - number)
        text = frames.literal(name, value)
        self._left -= len(name) + len(value) + self._OVERHEAD
        if self._left < 0:
            return text
        self._numbers[name, value] = len(self._numbers)
        return b"\x40" + text[1:]
