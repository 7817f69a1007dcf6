"""Requests that come over a new connection with mutual TLS each: every handshake is a full one, nothing is resumed."""

import itertools
import socket
import ssl
import threading
import time

from lab.backend import BODY
from lab.load import Load
from lab.ports import HOST
from lab.process import Failure

_THREADS = 8
_PATIENCE_SECONDS = 20


def context(root, identity=None):
    """TLS 1.3 that trusts the root, with or without a certificate of one's own.

    The server's name is not looked at: an identity of the mesh is a SPIFFE id, and the client's work does not count.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.load_verify_locations(root)
    if identity:
        made.load_cert_chain(identity.certificate, identity.key)
    return made


def ask(tls, port, host):
    """One connection, one request; returns the whole answer. Raises OSError (which TLS's errors are)."""
    with (socket.create_connection((HOST, port), timeout=_PATIENCE_SECONDS) as plain,
          tls.wrap_socket(plain, suppress_ragged_eofs=True) as connection):
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(8192), b""))


def handshakes(who, tls, port, host, count):
    """So many connections, some at a time; the rate of them."""
    numbers, wrong = itertools.count(), []

    def work():
        # `next` on a count is one step for threads.
        while next(numbers) < count and not wrong:
            try:
                answer = ask(tls, port, host)
            except OSError as error:
                answer = repr(error).encode()
            if not is_good(answer):
                wrong.append(answer)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(_THREADS)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise Failure(f"{who}: port {port} with a client's certificate: {wrong[0][:300]!r}")
    return Load(count, count / (time.monotonic() - start))


def is_good(answer):
    """Whether it is the back end's."""
    return answer.startswith(b"HTTP/1.1 200") and answer.endswith(BODY)
