"""Load: wrk for HTTP/1.1, h2load for HTTP/2. Any answer but a 2xx is a failure."""

import dataclasses
import re
import subprocess

from lab.ports import HOST
from lab.process import Failure, ending_with_us
from lab.tools import find

H1_CONNECTIONS = 32
H2_CONNECTIONS = (4, 16)
"""Connections and streams at a time on each: frames of many streams may be written at once."""
H2_SINGLE = (32, 1)
"""The same load without that."""


@dataclasses.dataclass
class Load:
    """What a load generator saw."""

    requests: int
    rate: float
    """Requests a second."""
    bytes_per_second: float = 0.0


def wrk(who, port, host, seconds, path="/", connections=H1_CONNECTIONS, close=False):
    """HTTP/1.1 for some whole seconds, on kept connections or with a new one for each request."""
    command = [find("wrk"), "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s",
               "-H", f"Host: {host}"]
    if close:
        command += ["-H", "Connection: close"]
    command.append(f"http://{HOST}:{port}{path}")
    text = _run(who, command, seconds + 30)
    count = re.search(r"(\d+) requests in ([\d.]+)(m?s)", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    transfer = re.search(r"Transfer/sec:\s+([\d.]+)([KMG]?)B", text)
    if not (count and rate and transfer) or int(count[1]) == 0:
        raise Failure(f"{who}: wrk counted nothing\n    $ {' '.join(command)}\n{_indent(text)}")
    wrong = re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", text)
    # wrk counts a connection that ends after its answer as an error of reading when it asked for that end.
    if wrong and not (close and _only_ended(wrong[0])):
        raise Failure(f"{who}: wrk saw failed requests: {wrong[0]}\n    $ {' '.join(command)}")
    scale = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[transfer[2]]
    return Load(int(count[1]), float(rate[1]), float(transfer[1]) * scale)


def _only_ended(errors):
    numbers = dict(re.findall(r"(connect|read|write|timeout) (\d+)", errors))
    return bool(numbers) and all(int(count) == 0 for kind, count in numbers.items() if kind != "read")


def h2load(who, port, host, requests, path="/", connections=H2_CONNECTIONS, body_bytes=None, arguments=()):
    """HTTP/2 without TLS, with prior knowledge, for a number of requests; each answer may have to have a size."""
    count, streams = connections
    command = [find("h2load"), "-t", "1", "-c", str(count), "-m", str(streams), "-n", str(requests), *arguments,
               f"--connect-to={HOST}:{port}", f"http://{host}{path}"]
    text = _run(who, command, 300)
    rate = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)
    good = [re.search(pattern, text) for pattern in (r"(\d+) succeeded", r"status codes: (\d+) 2xx")]
    bodies = re.search(r"\((\d+)\) data", text)
    if not (rate and bodies and all(number and int(number[1]) == requests for number in good)):
        raise Failure(f"{who}: h2load saw failed requests\n    $ {' '.join(command)}\n{_indent(text)}")
    if body_bytes is not None and int(bodies[1]) != requests * body_bytes:
        raise Failure(f"{who}: {bodies[1]} bytes of bodies came, not {requests} x {body_bytes}\n"
                      f"    $ {' '.join(command)}\n{_indent(text)}")
    return Load(requests, float(rate[1]))


def grpc_unary(who, port, host, requests, message):
    """Unary calls with a file's message. A call that failed also has a 200, but not the message's echo."""
    return h2load(who, port, host, requests, path="/bench.Echo/Say", body_bytes=message.stat().st_size, arguments=(
        "-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers"))


def _run(who, command, deadline):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=deadline, check=False,
                              preexec_fn=ending_with_us())
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{who}: no end of `{' '.join(command)}` after {deadline} s") from error
    if done.returncode != 0:
        text = _indent(done.stdout + done.stderr)
        raise Failure(f"{who}: `{' '.join(command)}` ended with status {done.returncode}\n{text}")
    return done.stdout


def _indent(text):
    return "\n".join(f"    | {line}" for line in text.strip().splitlines()[-15:])
