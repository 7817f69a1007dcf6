#!/usr/bin/env python3
"""The application behind the replicas that gives back what it is sent: bodies in HTTP/1.1, and bare bytes.

Run as `application.py HTTP_PORT TCP_PORT`; prints a line when it listens. What is called by gRPC is `lab/echo.py`.
"""

import asyncio
import contextlib
import sys

_HOST = "127.0.0.1"
_PART = 2**16


async def main():
    """Serves until it is ended."""
    for function, port in zip((_http1, _bytes), sys.argv[1:], strict=True):
        await asyncio.start_server(_guarded(function), _HOST, int(port), limit=2**20, backlog=1024)
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


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
