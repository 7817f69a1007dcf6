"""The kinds of traffic. Each function is a session: a connection's life from its first request to its end.

No session lasts longer than `LONGEST_SESSION`, so that a replica that stops gracefully never has to cut one.
"""

import contextlib
import dataclasses
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable

from lab.backend import BODY
from lab.caller import Caller, WrongAnswer
from lab.ports import HOST
from tally import SessionOver, Tally

LONGEST_SESSION = 12.0
"""Seconds."""
WEB, ECHO, STREAM = "web.soak", "web.soak:81", "web.soak:82"
BIG_PATH, BIG_BYTES = "/big", 2**20
VERSION_FIELD = "x-version"
_TIMEOUT = 30
# HPACK of `grpc-status: 0`, plain and in Huffman's code, as the first stream of a connection has it.
_GRPC_OK = (b"\x0bgrpc-status\x010", b"\x88\x9a\xca\xc8\xb2\x124\xda\x8f\x81\x07")
_CROWD = 256
_SLOW_BYTES, _SLOW_SECONDS, _SLOW_STEPS = 2**20, 6.0, 30


@dataclasses.dataclass(frozen=True)
class Door:
    """Where an application enters the mesh: the ports of its sidecar."""

    name: str
    http: int
    raw: int
    """A TCP port that leads to the application which gives bytes back."""
    site: int
    """A TCP port that leads to the web server."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of traffic."""

    name: str
    session: Callable[[Door, Tally], None]
    threads: int
    pause: float
    """Longest pause between two sessions, in seconds; it is random."""


def _http1(door, tally):
    """Small and big answers, small and big bodies, on a kept connection."""
    with contextlib.closing(_connection(door)) as connection:
        for _ in range(random.randint(1, 60)):
            time.sleep(random.uniform(0, 0.03))
            draw = random.random()
            if draw < 0.9:
                _get(door, tally, connection, "HTTP/1.1, small answer", "/", len(BODY))
            elif draw < 0.93:
                _get(door, tally, connection, "HTTP/1.1, big answer", BIG_PATH, BIG_BYTES)
            elif draw < 0.98:
                _post(door, tally, connection, "HTTP/1.1, small body", random.randbytes(random.randint(1, 8_192)))
            else:
                _post(door, tally, connection, "HTTP/1.1, big body", random.randbytes(2**20))


def _http2(door, tally):
    """Several streams at a time."""
    with contextlib.closing(Caller(door.http, _TIMEOUT)) as client:
        for _ in range(random.randint(1, 40)):
            time.sleep(random.uniform(0, 0.05))
            count = random.randint(1, 8)
            with tally.request("HTTP/2, several streams", f"{count} streams of GET / at {door.name}"):
                for stream in [client.open("GET", "/", WEB, end=True) for _ in range(count)]:
                    _check(bytes(client.finish(stream).body), BODY)
            tally.add("HTTP/2, several streams", count - 1)


def _grpc(door, tally):
    """Messages that come back, one by one, on streams that live for seconds."""
    fields = (("content-type", "application/grpc"), ("te", "trailers"))
    with contextlib.closing(Caller(door.http, _TIMEOUT)) as client:
        messages, end = 0, time.monotonic() + random.uniform(0.1, 5)
        with tally.request("gRPC, stream", f"bidirectional stream at {door.name}"):
            stream = client.open("POST", "/soak.Echo/Echo", STREAM, fields)
            while time.monotonic() < end:
                data = random.randbytes(random.choice((20, 1_000, 60_000)))
                message = struct.pack(">BI", 0, len(data)) + data
                client.send(stream, message)
                _check(client.receive(stream, len(message)), message)
                messages += 1
                time.sleep(random.uniform(0, 0.1))
            client.end(stream)
            if not stream.trailers.endswith(_GRPC_OK) or stream.body:
                raise WrongAnswer(f"after {messages} messages: trailers {stream.trailers!r}, {len(stream.body)} bytes left")
        tally.add("gRPC, message", messages)


def _tcp_kept(door, tally):
    """Exchanges on one connection."""
    end = time.monotonic() + random.uniform(0, 8)
    number = 0
    with tally.request("TCP, connection", f"connection to {door.name}"), _connect(door.raw) as connection:
        while time.monotonic() < end:
            number += 1
            data = random.randbytes(random.choice((10, 1_000, 30_000)))
            connection.sendall(data)
            _check(_take(connection, len(data)), data)
            tally.add("TCP, exchange on a kept connection", 1)
            time.sleep(random.uniform(0, 0.05))
        _end(connection)


def _tcp_new(door, tally):
    """A connection for one exchange."""
    with tally.request("TCP, new connection", f"new connection to {door.name}"), _connect(door.raw) as connection:
        data = random.randbytes(random.randint(1, 2_000))
        connection.sendall(data)
        _check(_take(connection, len(data)), data)
        _end(connection)


def _slow_reader(door, tally):
    """Takes a big answer over seconds, so that what is in between fills up."""
    what = f"GET {BIG_PATH} at {door.name}, read in {_SLOW_SECONDS:g} s"
    with tally.request("HTTP/1.1, slow reader", what), contextlib.closing(_connection(door)) as connection:
        connection.request("GET", BIG_PATH, headers={"Host": WEB})
        answer = connection.getresponse()
        size = 0
        for _ in range(_SLOW_STEPS):
            time.sleep(_SLOW_SECONDS / _SLOW_STEPS)
            size += len(answer.read(BIG_BYTES // _SLOW_STEPS))
        size += len(answer.read())
        if (answer.status, size) != (200, BIG_BYTES):
            raise WrongAnswer(f"status {answer.status}, {size} bytes")


def _slow_writer(door, tally):
    """Sends a body over seconds."""
    body = random.randbytes(_SLOW_BYTES)
    step = len(body) // _SLOW_STEPS

    def parts():
        for start in range(0, len(body), step):
            time.sleep(_SLOW_SECONDS / _SLOW_STEPS)
            yield body[start:start + step]

    with contextlib.closing(_connection(door)) as connection:
        _post(door, tally, connection, "HTTP/1.1, slow writer", body, parts())


def _quitter(door, tally):
    """Goes away in the middle of an answer or of a body. Its own requests cannot fail; others must not suffer."""
    with _connect(door.http) as connection:
        if random.random() < 0.5:
            connection.sendall(f"GET {BIG_PATH} HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode())
            connection.recv(1_000)
        else:
            head = f"POST / HTTP/1.1\r\nHost: {ECHO}\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 5_000)
        time.sleep(random.uniform(0, 0.2))
        if random.random() < 0.5:
            _reset_at_close(connection)
    tally.add("HTTP/1.1, client that leaves", 1)


def _crowd(door, tally):
    """Many clients who have just asked leave at once, as when their own caller has given up."""
    with contextlib.ExitStack() as connections:
        crowd = [connections.enter_context(_connect(door.http)) for _ in range(_CROWD)]
        for connection in crowd:
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode())
            _reset_at_close(connection)
    tally.add("HTTP/1.1, client of a crowd that leaves", _CROWD)


KINDS = [
    Kind("http1", _http1, threads=2, pause=0.05),
    Kind("http2", _http2, threads=2, pause=0.05),
    Kind("grpc", _grpc, threads=2, pause=0.05),
    Kind("tcp-kept", _tcp_kept, threads=2, pause=0.05),
    Kind("tcp-new", _tcp_new, threads=1, pause=0.05),
    Kind("slow-reader", _slow_reader, threads=1, pause=0.5),
    Kind("slow-writer", _slow_writer, threads=1, pause=0.5),
    Kind("quitter", _quitter, threads=1, pause=0.5),
    Kind("crowd", _crowd, threads=1, pause=10),
]


class Traffic:
    """Some kinds at all doors, each thread one session after the other until `stop`."""

    def __init__(self, doors, tally, kinds):
        self._ending = threading.Event()
        self._tally = tally
        self._threads = [
            threading.Thread(target=self._run, args=(kind, door), name=f"{kind.name} {door.name}", daemon=True)
            for door in doors for kind in kinds for _ in range(kind.threads)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Lets sessions end; returns the names of those that did not."""
        self._ending.set()
        for thread in self._threads:
            thread.join(LONGEST_SESSION + _TIMEOUT)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _run(self, kind, door):
        while not self._ending.wait(random.uniform(0, kind.pause)):
            try:
                kind.session(door, self._tally)
            except SessionOver:
                # Where everything fails, a hundred lines tell no more than a few.
                self._ending.wait(1)
            except OSError as error:
                self._tally.fail(kind.name, f"session at {door.name}", error)
                self._ending.wait(1)


def _reset_at_close(connection):
    """A reset instead of an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _connection(door):
    return http.client.HTTPConnection(HOST, door.http, timeout=_TIMEOUT)


def _connect(port):
    connection = socket.create_connection((HOST, port), timeout=_TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _get(door, tally, connection, kind, path, size):
    with tally.request(kind, f"GET {path} at {door.name}"):
        connection.request("GET", path, headers={"Host": WEB})
        answer = connection.getresponse()
        body = answer.read()
        _check_answer(answer, body, size)
        tally.answered_by(answer.getheader(VERSION_FIELD, "unknown"))


def _post(door, tally, connection, kind, body, parts=None):
    with tally.request(kind, f"POST of {len(body)} bytes at {door.name}"):
        headers = {"Host": ECHO, "Content-Length": str(len(body))}
        connection.request("POST", "/", body=parts or body, headers=headers)
        answer = connection.getresponse()
        got = answer.read()
        _check_answer(answer, got, len(body))
        _check(got, body)


def _check_answer(answer, body, size):
    if (answer.status, len(body)) != (200, size):
        raise WrongAnswer(f"status {answer.status} ({answer.getheader('x-pillion-reason', 'no reason given')}), "
                    f"{len(body)} bytes instead of {size}: {body[:100]!r}")


def _check(got, sent):
    if got != sent:
        raise WrongAnswer(f"{len(got)} bytes {got[:60]!r} instead of {len(sent)} bytes {sent[:60]!r}")


def _take(connection, size):
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError(f"the connection ended after {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)


def _end(connection):
    """Our end first, then theirs."""
    connection.shutdown(socket.SHUT_WR)
    if rest := connection.recv(1):
        raise WrongAnswer(f"{rest!r} after the last answer")
