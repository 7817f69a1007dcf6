"""Free loopback ports, and waiting for somebody to listen on them."""

import http.client
import random
import socket
import time

HOST = "127.0.0.1"
# Below the range from which the kernel takes ports for those who ask for any. Two commands at once start elsewhere.
_FIRST, _END = 11_000, 32_000
_next = random.randrange(_FIRST, _END)


def free_port():
    """A port that is free now."""
    global _next
    while True:
        _next = _next + 1 if _next + 1 < _END else _FIRST
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, _next))
                return _next
            except OSError:
                continue


def wait_until_listening(process, port, deadline=15.0):
    """Waits until the port takes connections."""
    end = time.monotonic() + deadline
    while True:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError as error:
            if process.exited() is not None or time.monotonic() > end:
                raise process.failure(f"does not listen on port {port} after {deadline:g} s: {error}") from error
            time.sleep(0.01)


def get(port, path="/", host="localhost", timeout=5.0):
    """One HTTP/1.1 request; returns status and body. Raises OSError or http.client.HTTPException."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def wait_for_answer(process, port, path="/", host="localhost", deadline=30.0, pause=0.02):
    """Waits for a 200 and returns its body."""
    end = time.monotonic() + deadline
    while True:
        try:
            status, body = get(port, path, host)
            if status == 200:
                return body
            seen = f"status {status}: {body[:200]!r}"
        except (OSError, http.client.HTTPException) as error:
            seen = repr(error)
        if process.exited() is not None or time.monotonic() > end:
            raise process.failure(f"no 200 for http://{HOST}:{port}{path} (Host: {host}); last {seen}")
        time.sleep(pause)
