"""A gRPC back end that says everything again, whatever the method: unary and streaming calls look the same to it.

Run as a program with its port.
"""

import selectors
import socket
import sys

from http2 import DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Connection, header_block

_HEAD = header_block([(":status", "200"), ("content-type", "application/grpc")])
_TRAILERS = header_block([("grpc-status", "0")])


def main():
    """Serves all connections in one thread, until it is ended."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.data is None:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting.register(accepted, selectors.EVENT_READ, _Echo(accepted))
                continue
            try:
                key.data.serve()
            except (OSError, EOFError, ValueError) as error:
                if not isinstance(error, EOFError):
                    print(f"a connection failed: {error}", file=sys.stderr)
                waiting.unregister(key.fileobj)
                key.fileobj.close()


class _Echo:
    """One connection."""

    def __init__(self, accepted):
        self._connection = Connection(accepted)
        self._skip = len(PREFACE)

    def serve(self):
        """Answers what has come, in one write."""
        connection = self._connection
        for kind, flags, stream, payload in connection.read(self._skip):
            if kind == HEADERS:
                connection.write(HEADERS, END_HEADERS, stream, _HEAD)
            elif kind == DATA and payload:
                connection.write(DATA, 0, stream, payload)
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                connection.write(HEADERS, END_HEADERS | END_STREAM, stream, _TRAILERS)
        self._skip = 0
        connection.flush()


if __name__ == "__main__":
    main()
