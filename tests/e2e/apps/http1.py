"""An HTTP/1.1 application on bare sockets: it answers with the request, byte for byte, as JSON.

Usage: http1.py IP:0 [NAME...]. It listens once per name, so that one process plays several applications.
A name that ends in "!" plays one that closes a kept connection just as a second request arrives on it.
The first part of the path says what to do; see BEHAVIOURS.
"""

import json
import socket
import sys
import threading

lock = threading.Condition()
accepted = {}
seen = {}
waiting = 0


class Request:
    def __init__(self, reader):
        line = reader.readline().decode("latin-1")
        if not line.strip():
            raise EOFError
        self.method, self.target, self.version = line.split()
        self.fields = []
        while (line := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, value = line.split(":", 1)
            self.fields.append([name.lower(), value.strip()])
        self.reader, self.body, self.trailers = reader, b"", []

    def field(self, name):
        return ", ".join(value for key, value in self.fields if key == name)

    def read_body(self):
        if "chunked" in self.field("transfer-encoding"):
            while size := int(self.reader.readline().split(b";")[0], 16):
                self.body += self.reader.read(size)
                self.reader.readline()
            while (line := self.reader.readline().decode("latin-1").rstrip("\r\n")) != "":
                self.trailers.append([part.strip() for part in line.split(":", 1)])
        elif self.field("content-length"):
            self.body = self.reader.read(int(self.field("content-length")))


def message(status, fields, body=b""):
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body


def whole(status, body, fields=()):
    return message(status, [*fields, ("Content-Length", len(body))], body)


def chunks(*parts):
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n"


def gather(count):
    """Waits until this many requests are here at the same time."""
    global waiting
    with lock:
        waiting += 1
        lock.notify_all()
        arrived = lock.wait_for(lambda: waiting >= count, timeout=15)
    return whole("200 OK" if arrived else "408 Alone", b"gathered\n")


HOP_BY_HOP = [
    ("Connection", "X-Hop, keep-alive"), ("X-Hop", "1"), ("Keep-Alive", "timeout=5"), ("Proxy-Connection", "keep-alive"),
    ("X-Pillion-Reason", "forged"), ("X-Pillion-Port", "1"), ("X-Kept", "1"), ("Set-Cookie", "a=1"),
    ("Set-Cookie", "b=2"),
]  # fmt: skip

# What to answer: bytes, and whether the connection ends after them.
BEHAVIOURS = {
    "hints": lambda _, echo: (message("103 Early Hints", [("Link", "</a>")]) + message("102 Processing", []) + echo, False),
    "status": lambda argument, _: (message(f"{argument} Any", [("Etag", '"x"')]), False),
    "head": lambda _, echo: (echo.split(b"\r\n\r\n")[0] + b"\r\n\r\n", False),
    "chunked": lambda _, echo: (
        message("200 OK", [("Transfer-Encoding", "chunked")], chunks(b"one,", b"two,", b"three") + b"\r\n"), False),
    "trailers": lambda _, echo: (
        message("200 OK", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")],
                chunks(b"data") + b"X-Sum: 42\r\n\r\n"), False),
    "until-close": lambda _, echo: (message("200 OK", [("Connection", "close")], b"until the end"), True),
    "http10": lambda _, echo: (b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold", True),
    "cut": lambda _, echo: (message("200 OK", [("Content-Length", "100")], b"only this"), True),
    "cut-chunked": lambda _, echo: (
        message("200 OK", [("Transfer-Encoding", "chunked")], b"64\r\nonly this"), True),
    "fields": lambda _, echo: (whole("200 OK", b"", HOP_BY_HOP), False),
    "garbage": lambda _, echo: (b"220 smtp.example ESMTP\r\n\r\n", True),
    "nothing": lambda _, echo: (b"", True),
    "switch": lambda _, echo: (message("101 Switching Protocols", [("Connection", "upgrade"), ("Upgrade", "x")]), True),
    "large": lambda argument, echo: (whole("200 OK", b"", [("X-Large", "x" * int(argument))]), False),
    "gather": lambda argument, echo: (gather(int(argument)), False),
    "requests": lambda argument, _: (whole("200 OK", json.dumps(seen.get(argument, [])).encode()), False),
    "accepted": lambda _, echo: (whole("200 OK", json.dumps(accepted).encode()), False),
}  # fmt: skip


def serve(connection, name, number):
    reader = connection.makefile("rb")
    served = 0
    try:
        while True:
            request = Request(reader)
            parts = request.target.split("?")[0].strip("/").split("/")
            if parts[0] == "reject":
                connection.sendall(message("413 Too Much", [("Content-Length", "0"), ("Connection", "close")]))
                connection.shutdown(socket.SHUT_WR)
                while reader.read(65536):  # As nginx does (lingering close): a reset would destroy the answer.
                    pass
                return
            request.read_body()
            served += 1
            if name.endswith("!") and served > 1:
                return
            said = {
                "name": name, "method": request.method, "target": request.target, "version": request.version,
                "fields": request.fields, "body": request.body.decode("latin-1"), "trailers": request.trailers,
                "connection": number,
            }  # fmt: skip
            if parts[0] != "requests":
                seen.setdefault(name, []).append(said)
            echo = whole("200 OK", json.dumps(said).encode(), [("Content-Type", "application/json"), ("X-App", name)])
            argument = parts[1] if len(parts) > 1 else ""
            answer, ends = BEHAVIOURS.get(parts[0], lambda _, echo: (echo, False))(argument, echo)
            connection.sendall(answer)
            if ends or "close" in request.field("connection"):
                return
    except (EOFError, ConnectionError, ValueError):
        pass
    finally:
        reader.close()
        connection.close()


def listen(listener, name):
    while True:
        connection, _ = listener.accept()
        with lock:
            accepted[name] = accepted.get(name, 0) + 1
            number = accepted[name]
        threading.Thread(target=serve, args=(connection, name, number), daemon=True).start()


def main():
    ip, _ = sys.argv[1].rsplit(":", 1)
    listeners = {name: socket.create_server((ip, 0), backlog=256) for name in sys.argv[2:] or ["http1"]}
    addresses = {name: "%s:%d" % listener.getsockname() for name, listener in listeners.items()}
    threads = [threading.Thread(target=listen, args=(listener, name)) for name, listener in listeners.items()]
    for thread in threads:
        thread.start()
    print(json.dumps({"listen": next(iter(addresses.values())), "names": addresses}), flush=True)


main()
