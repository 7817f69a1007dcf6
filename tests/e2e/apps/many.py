"""Many connections: `many.py serve IP:PORT` echoes; `many.py dial HOST PORT COUNT AT_ONCE` opens COUNT connections, AT_ONCE at
a time, exchanges a few bytes on each and closes it. With `http` at the end each is a request with `Connection: close`.

The client prints as JSON how many succeeded, and what went wrong with how many.
"""

import asyncio
import collections
import json
import sys

WORDS = b"\0hello\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: many\r\nConnection: close\r\n\r\n"


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Client(asyncio.Protocol):
    def __init__(self, done, is_http):
        self.done, self.is_http, self.received = done, is_http, b""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(REQUEST if self.is_http else WORDS)

    def data_received(self, data):
        self.received += data
        if not self.is_http and self.received == WORDS:
            self.transport.close()

    def connection_lost(self, error):
        good = self.received.startswith(b"HTTP/1.1 200 ") if self.is_http else self.received == WORDS
        self.done.set_result("good" if good else repr(error or self.received))


async def serve(address):
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, host, int(port), backlog=4096)
    print(json.dumps({"listen": address}), flush=True)
    await server.serve_forever()


async def dial(host, port, count, at_once, is_http):
    loop = asyncio.get_running_loop()
    left, results = iter(range(count)), collections.Counter()

    async def one_after_another():
        for _ in left:
            done = loop.create_future()
            try:
                await loop.create_connection(lambda: Client(done, is_http), host, port)
                result = await asyncio.wait_for(done, 20)
            except OSError as error:
                result = repr(error)
            results[result] += 1

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    good = results.pop("good", 0)
    print(json.dumps({"good": good, "bad": results}))


if sys.argv[1] == "serve":
    asyncio.run(serve(sys.argv[2]))
else:
    host, port, count, at_once = sys.argv[2], *map(int, sys.argv[3:6])
    asyncio.run(dial(host, port, count, at_once, "http" in sys.argv[6:]))
