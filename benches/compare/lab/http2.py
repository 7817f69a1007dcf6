"""As much of HTTP/2 (RFC 9113) as a gRPC echo and its caller need: frames, settings, pings, windows.

Headers are written without compression and never read: what a peer wants is told by its frames.
"""

import collections
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
_INITIAL_WINDOW_SIZE = 4
_WINDOW = 65_535
# How much is taken in before the other side is told that it may send as much again.
_GIVE_BACK = 16_384


def header_block(fields):
    """Literal fields that are never indexed, without Huffman coding (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
                    for name, value in fields)


class Connection:
    """One side of a connection. What is to be sent waits for `flush`."""

    def __init__(self, socket, first=b""):
        self.socket = socket
        self._in, self._out = bytearray(), bytearray(first)
        self._taken = collections.Counter()
        self._window, self._initial, self._used = _WINDOW, _WINDOW, collections.Counter()
        self.write(SETTINGS, 0, 0)

    def write(self, kind, flags, stream, payload=b""):
        """A frame. Nobody here sends so much that a window would have to be waited for: it would be an error."""
        if kind == DATA:
            self._window -= len(payload)
            self._used[stream] += len(payload)
            if self.room(stream) < 0:
                raise ValueError(f"the other side does not open its window again, stream {stream}")
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self._used.pop(stream, None)
        self._out += struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload

    def room(self, stream):
        """How many bytes of DATA the other side takes now."""
        return min(self._window, self._initial - self._used[stream])

    def flush(self):
        """Sends what was written."""
        if self._out:
            self.socket.sendall(self._out)
            self._out.clear()

    def read(self, skip=0):
        """What has come of DATA, HEADERS and RST_STREAM: kind, flags, stream, payload. Raises EOFError at the end.

        The first `skip` bytes are no frames; with them, as much is waited for.
        """
        while True:
            part = self.socket.recv(2**18)
            if not part:
                raise EOFError("the connection has ended")
            self._in += part
            if len(self._in) >= skip:
                break
        del self._in[:skip]
        return list(self._frames())

    def _frames(self):
        at = 0
        while len(self._in) >= at + 9:
            size_and_kind, flags, stream = struct.unpack_from(">IBI", self._in, at)
            end = at + 9 + (size_and_kind >> 8)
            if len(self._in) < end:
                break
            kind, payload = size_and_kind & 0xFF, bytes(self._in[at + 9:end])
            at = end
            if kind == DATA:
                self._give_back(0, len(payload))
                if flags & END_STREAM:
                    self._taken.pop(stream, None)
                else:
                    self._give_back(stream, len(payload))
                if flags & PADDED:
                    payload = payload[1:len(payload) - payload[0]]
            if kind in (DATA, HEADERS, RST_STREAM):
                yield kind, flags, stream, payload
            else:
                self._answer(kind, flags, stream, payload)
        del self._in[:at]

    def _give_back(self, stream, size):
        self._taken[stream] += size
        if self._taken[stream] >= _GIVE_BACK:
            self.write(WINDOW_UPDATE, 0, stream, struct.pack(">I", self._taken.pop(stream)))

    def _answer(self, kind, flags, stream, payload):
        """What is about the connection."""
        if kind == SETTINGS and not flags & ACK:
            settings = dict(struct.iter_unpack(">HI", payload))
            self._initial = settings.get(_INITIAL_WINDOW_SIZE, self._initial)
            self.write(SETTINGS, ACK, 0)
        elif kind == PING and not flags & ACK:
            self.write(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += struct.unpack(">I", payload)[0]
        elif kind == WINDOW_UPDATE and stream in self._used:
            self._used[stream] -= struct.unpack(">I", payload)[0]
        elif kind == GOAWAY and struct.unpack_from(">I", payload, 4)[0] != 0:
            raise ValueError(f"the other side went away: {payload!r}")
