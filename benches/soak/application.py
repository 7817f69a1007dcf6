#!/usr/bin/env python3
"""The application behind the replicas that gives back what it is sent: HTTP/1.1, gRPC-like streams, and bare bytes.

Run as `application.py HTTP1_PORT HTTP2_PORT TCP_PORT`; prints a line when it listens.
"""

import asyncio
import contextlib
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "compare"))

from lab import frames
from lab.ports import HOST

_PART = 2**16


async def main():
    """Serves until it is ended."""
    serve = (_http1, _http2, _bytes)
    for function, port in zip(serve, sys.argv[1:], strict=True):
        await asyncio.start_server(_guarded(function), HOST, int(port), limit=2**20, backlog=1024)
    print("listening", flush=True)
    await asyncio.Event().wait()


def _guarded(serve):
    async def guarded(reader, writer):
        try:
            # A caller that has gone is no error of ours.
            with contextlib.suppress(OSError, EOFError):
                await serve(reader, writer)
        finally:
            writer.close()

    return guarded


async def _bytes(reader, writer):
    while part := await reader.read(_PART):
        writer.write(part)
        await writer.drain()


async def _http1(reader, writer):
    """Answers every request with its own body, which needs a Content-Length."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if line)
        # All of it first: a caller may send all before it reads.
        body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()


async def _http2(reader, writer):
    """Answers every stream with its own messages and, at its end, with the trailers of gRPC."""
    if await reader.readexactly(len(frames.PREFACE)) != frames.PREFACE:
        return
    writer.write(frames.frame(frames.SETTINGS, 0, 0))
    connection = _Connection(writer)
    while True:
        length, kind, flags, stream = frames.read_head(await reader.readexactly(frames.HEAD_BYTES))
        connection.take(kind, flags, stream, await reader.readexactly(length))
        await writer.drain()


class _Connection:
    """What of HTTP/2 has to be remembered: how much may be sent, and what waits for that."""

    _HEAD = bytes([frames.STATUS_200]) + frames.literal("content-type", "application/grpc")
    _TRAILERS = frames.literal("grpc-status", "0")

    def __init__(self, writer):
        self._writer = writer
        self._window, self._stream_window = frames.FIRST_WINDOW, frames.FIRST_WINDOW
        self._streams = {}

    def take(self, kind, flags, number, payload):
        """Takes in one frame and sends what it allows to be sent."""
        if kind == frames.HEADERS and number not in self._streams:
            self._streams[number] = _Stream(self._stream_window)
            self._send(frames.HEADERS, frames.END_HEADERS, number, self._HEAD)
        stream = self._streams.get(number)
        if kind == frames.DATA and stream:
            stream.waiting += frames.without_padding(payload, flags)
            stream.unread += len(payload)
        elif kind == frames.RST_STREAM and self._streams.pop(number, None):
            # What it has not been given back yet is lost to it, but not to the others.
            self._give_back(0, stream.unread)
        elif kind == frames.WINDOW_UPDATE and number == 0:
            self._window += int.from_bytes(payload)
        elif kind == frames.WINDOW_UPDATE and stream:
            stream.window += int.from_bytes(payload)
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._take_settings(payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self._send(frames.PING, frames.ACK, 0, payload)
        if kind in (frames.DATA, frames.HEADERS) and stream and flags & frames.END_STREAM:
            stream.ended = True
        for waiting in list(self._streams):
            self._flush(waiting)

    def _take_settings(self, payload):
        for name, value in struct.iter_unpack(">HI", payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value
        self._send(frames.SETTINGS, frames.ACK, 0, b"")

    def _flush(self, number):
        """Sends of a stream what both windows allow."""
        stream = self._streams[number]
        while room := min(len(stream.waiting), self._window, stream.window, frames.LARGEST_FRAME):
            self._send(frames.DATA, 0, number, stream.waiting[:room])
            del stream.waiting[:room]
            self._window -= room
            stream.window -= room
        if not stream.waiting and stream.unread:
            self._give_back(0, stream.unread)
            if not stream.ended:
                self._give_back(number, stream.unread)
            stream.unread = 0
        if stream.ended and not stream.waiting:
            self._send(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, self._TRAILERS)
            del self._streams[number]

    def _give_back(self, number, count):
        if count:
            self._send(frames.WINDOW_UPDATE, 0, number, count.to_bytes(4))

    def _send(self, kind, flags, number, payload):
        self._writer.write(frames.frame(kind, flags, number, payload))


class _Stream:
    """One stream of a connection."""

    def __init__(self, window):
        self.window = window
        self.waiting = bytearray()
        self.unread = 0
        """Bytes that the peer thinks we have not read yet."""
        self.ended = False


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
