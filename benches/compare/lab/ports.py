"""Free loopback ports, and waiting for somebody to listen on them."""

import http.client
import random
import socket
import time

HOST = "127.0.0.1"
# Below those which the kernel gives to whoever asks for any.
_RANGE = range(11_000, 32_000)
_given = set()


def free_port():
    """A port that is free now and was not given before, at random: other runs on the machine look for some as well."""
    while True:
        port = random.choice(_RANGE)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return port
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
