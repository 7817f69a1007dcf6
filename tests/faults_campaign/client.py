#!/usr/bin/env python3
"""The client: requests at a constant rate, whatever becomes of them, each with a deadline that counts from when it was due.

Run as `client.py NAMESERVER NAME PORT RATE SECONDS FILE`. It looks the name up for each request and takes the addresses in
turn; connections are kept per address and used again. It tries nothing twice but the question to the name server. It knows
of no mesh: what it does is the same with one and without. Prints a line when it begins; the file gets a list of
`[due, seconds, failure, replica]`: failure is null for an answer of 200 with its whole body, replica is who gave that.
"""

import asyncio
import collections
import contextlib
import gc
import itertools
import json
import random
import socket
import struct
import sys
import time

TIMEOUT_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 1.0


class Refused(Exception):
    """An answer that is none; says which."""


class Names(asyncio.DatagramProtocol):
    """A name server, asked over UDP."""

    def __init__(self):
        self._waiting = {}
        self._transport = None

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, _):
        waiting = self._waiting.get(data[:2])
        if waiting and not waiting.done():
            waiting.set_result(data)

    def error_received(self, _):
        """Nobody listens: as most resolvers we wait, and ask again."""

    async def look_up(self, name):
        """Its IPv4 addresses, sorted; waits for ever."""
        number = next(number for number in iter(lambda: random.randbytes(2), None) if number not in self._waiting)
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        query = number + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + labels + struct.pack(">B2H", 0, 1, 1)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            while True:
                self._transport.sendto(query)
                with contextlib.suppress(TimeoutError):
                    return _addresses(await asyncio.wait_for(asyncio.shield(waiting), _ASK_AGAIN_SECONDS), len(query))
        finally:
            del self._waiting[number]


def _addresses(answer, at):
    """The A records behind the question, each of which has its name as a pointer."""
    code, count = answer[3] & 15, struct.unpack_from(">H", answer, 6)[0]
    found = []
    for _ in range(count):
        kind, length = struct.unpack_from(">2xH6xH", answer, at)
        if kind == 1:
            found.append(socket.inet_ntoa(answer[at + 12:at + 12 + length]))
        at += 12 + length
    if not found:
        raise Refused(f"no such name (code {code})")
    return sorted(found)


class Client:
    """What it asks for, the connections that are free, and what became of its requests."""

    def __init__(self, names, name, port):
        self._names, self._name, self._port = names, name, port
        self._request = f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()
        self._turns = itertools.count()
        self._free = collections.defaultdict(list)
        self.results = []

    async def ask(self, due, since):
        """One request, to its end."""
        failure = replica = None
        try:
            async with asyncio.timeout_at(due + TIMEOUT_SECONDS):
                replica = await self._ask()
        except TimeoutError:
            failure = "timeout"
        except Refused as refused:
            failure = str(refused)
        except (OSError, asyncio.IncompleteReadError) as error:
            failure = type(error).__name__
        taken = asyncio.get_running_loop().time() - due
        self.results.append([due - since, taken, failure, replica])

    async def _ask(self):
        addresses = await self._names.look_up(self._name)
        address = addresses[next(self._turns) % len(addresses)]
        reader, writer = await self._connection(address)
        kept = False
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            kept = fields.get(b"connection") != b"close"
            status = head.split(b" ", 2)[1].decode()
            if status != "200":
                raise Refused(f"status {status} {fields.get(b'x-pillion-reason', b'').decode()}".strip())
            return fields[b"x-replica"].decode()
        finally:
            if kept:
                self._free[address].append((reader, writer))
            else:
                writer.transport.abort()

    async def _connection(self, address):
        """One that is free and not known to have ended, or a new one."""
        while self._free[address]:
            reader, writer = self._free[address].pop()
            if not reader.at_eof() and reader.exception() is None and not writer.is_closing():
                return reader, writer
        reader, writer = await asyncio.open_connection(address, self._port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return reader, writer


async def main(nameserver, name, port, rate, seconds, file):
    """Sends what is due when it is due; a request that waits holds up none."""
    gc.disable()
    loop = asyncio.get_running_loop()
    _, names = await loop.create_datagram_endpoint(Names, remote_addr=(nameserver, 53))
    client = Client(names, name, int(port))
    rate, seconds = float(rate), float(seconds)
    print(time.monotonic(), flush=True)
    start = loop.time()
    async with asyncio.TaskGroup() as requests:
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(due - loop.time())
            requests.create_task(client.ask(due, start))
    with open(file, "w", encoding="utf-8") as out:
        json.dump(sorted(client.results, key=lambda result: result[0]), out)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
