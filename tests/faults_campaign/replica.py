#!/usr/bin/env python3
"""The application of a replica: answers any HTTP/1.1 request without a body at once, until a signal says otherwise.

Run as `replica.py NAME PORT`; prints a line when it listens. SIGUSR1: answers come after a second. SIGUSR2: whoever connects,
and whoever asks on a connection that is there, gets a reset. SIGWINCH: all is well again.
"""

import asyncio
import contextlib
import signal
import socket
import struct
import sys

SLOW_SECONDS = 1
_BODY = b"0123456789abcdef" * 64


class Replica:
    """Its mood is what the last signal said."""

    def __init__(self, name):
        self._answer = b"HTTP/1.1 200 OK\r\nX-Replica: %s\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(_BODY)) + _BODY
        self._slow = self._resets = False

    async def run(self, port):
        """Serves until it is ended."""
        loop = asyncio.get_running_loop()
        for number, slow, resets in ((signal.SIGUSR1, True, False), (signal.SIGUSR2, False, True),
                                     (signal.SIGWINCH, False, False)):
            loop.add_signal_handler(number, self._become, slow, resets)
        await asyncio.start_server(self._serve, "0.0.0.0", port, backlog=1024)
        print("listening", flush=True)
        await asyncio.Event().wait()

    def _become(self, slow, resets):
        self._slow, self._resets = slow, resets

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not self._resets:
                await reader.readuntil(b"\r\n\r\n")
                if self._slow:
                    await asyncio.sleep(SLOW_SECONDS)
                if not self._resets:
                    writer.write(self._answer)
                    await writer.drain()
            # Closing now sends no FIN but a RST.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        writer.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Replica(sys.argv[1]).run(int(sys.argv[2])))
