"""The application behind every contender: nginx with a fixed answer of 1 KiB, and a file of 16 MiB for bulk."""

from lab import ports
from lab.nginx import start_nginx

BODY = b"0123456789abcdef" * 64
BULK_PATH, BULK_BYTES = "/bulk", 16 * 2**20


class BackEnd:
    """One worker; a port for HTTP/1.1 and one for HTTP/2 with prior knowledge."""

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
