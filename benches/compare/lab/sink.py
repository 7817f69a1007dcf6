"""A back end for uploads: an HTTP/1.1 server that throws bodies away in the kernel, so that it costs next to nothing.

Run as a program with its port and the file of its answer's body.
"""

import pathlib
import re
import socket
import sys
import threading

_AT_ONCE = 2**18


def main():
    """Serves each connection in a thread, until it is ended."""
    port, body = int(sys.argv[1]), pathlib.Path(sys.argv[2]).read_bytes()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection, answer), daemon=True).start()


def _serve(connection, answer):
    with connection:
        try:
            while _throw_request_away(connection):
                connection.sendall(answer)
        except OSError:
            # The other side went: no more is to be done for it.
            pass


def _throw_request_away(connection):
    """Takes one request with its body, whose answer is the last that is waited for; false at the end."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(8192)
        if not part:
            return False
        head += part
    head, _, begun = head.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    left = (int(length[1]) if length else 0) - len(begun)
    while left > 0:
        # With this flag the kernel drops what it counts.
        gone = len(connection.recv(min(left, _AT_ONCE), socket.MSG_TRUNC))
        if gone == 0:
            return False
        left -= gone
    return True


if __name__ == "__main__":
    main()
