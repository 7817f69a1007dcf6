"""The application behind every contender: nginx with a fixed answer of 1 KiB, and a file of 16 MiB for bulk.

What nginx cannot do has a program of its own: `sink` takes uploads, `echo` is called by gRPC.
"""

import pathlib
import struct
import sys

from lab import ports
from lab.nginx import start_nginx
from lab.process import Process

BODY = b"0123456789abcdef" * 64
BULK_PATH, BULK_BYTES = "/bulk", 16 * 2**20


class BackEnd:
    """One worker of nginx; ports for HTTP/1.1, HTTP/2 with prior knowledge, uploads in HTTP/1.1, and gRPC."""

    def __init__(self, folder):
        files = folder / "files"
        files.mkdir()
        with open(files / "bulk", "wb") as bulk:
            bulk.write(b"\0" * BULK_BYTES)
        self.http1, self.http2 = ports.free_port(), ports.free_port()
        self.process = start_nginx("back end", folder / "back-end", 1, http=f"""\
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  sendfile on;
  tcp_nopush on;
  http2_max_concurrent_streams 1024;
  server {{
    listen 127.0.0.1:{self.http1} backlog=4096;
    listen 127.0.0.1:{self.http2} http2 backlog=4096;
    location / {{ return 200 "{BODY.decode()}"; }}
    location = {BULK_PATH} {{ root {files}; }}
  }}
""")
        ports.wait_until_listening(self.process, self.http1)
        body = folder / "body"
        body.write_bytes(BODY)
        self.upload = ports.free_port()
        self.sink = start_program("sink", self.upload, body)
        self.message = folder / "message"
        # As gRPC frames it: not compressed, its length.
        self.message.write_bytes(struct.pack(">BI", 0, len(BODY)) + BODY)
        self.grpc = ports.free_port()
        self.echo = start_program("echo", self.grpc)

    def stop(self):
        """Ends all of it."""
        for process in (self.process, self.sink, self.echo):
            process.stop()


def start_program(name, port, *arguments):
    """Starts a program of this folder, which listens on the port."""
    path = pathlib.Path(__file__).with_name(f"{name}.py")
    process = Process(f"back end: {name}", [sys.executable, path, port, *arguments])
    ports.wait_until_listening(process, port)
    return process
