"""Says where connections arrive, and as what.

  witness.py listen SPEC...   answers every connection (and datagram) with one line of JSON: which listener has it, its
                              original destination, its two addresses, and what the caller said first
  witness.py dial SPEC...     prints one line of JSON: what was answered at each, or how that failed

SPEC is tcp:ADDRESS:PORT or udp:ADDRESS:PORT; a listener may be transparent:ADDRESS:PORT, and what is dialled may go on with
@ADDRESS:PORT, the (foreign) address to call from. Either may end in #MARK.
"""

import json
import os
import socket
import struct
import sys
import threading

SO_ORIGINAL_DST = 80  # The same number in both families.
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
TIMEOUT = 1.0


def address(text):
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def text(pair):
    host = pair[0].removeprefix("::ffff:")
    return f"[{host}]:{pair[1]}" if ":" in host else f"{host}:{pair[1]}"


def make(kind, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def transparent(made):
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    made.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def original(connection):
    try:
        if ":" in connection.getsockname()[0] and not connection.getsockname()[0].startswith("::ffff:"):
            raw = connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            return text((socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]))
        raw = connection.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
        return text((socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack("!H", raw[2:4])[0]))
    except OSError as error:
        return error.strerror


def serve_stream(listener, name):
    while True:
        connection, peer = listener.accept()
        answer = {"at": name, "original": original(connection), "local": text(connection.getsockname()), "peer": text(peer)}
        connection.sendall(json.dumps(answer).encode() + b"\n")
        connection.close()


def serve_datagrams(listener, name):
    while True:
        _, peer = listener.recvfrom(2048)
        listener.sendto(json.dumps({"at": name, "peer": text(peer)}).encode(), peer)


def listen(specs):
    for spec in specs:
        kind, _, where = spec.partition(":")
        where, _, mark = where.partition("#")
        host, port = address(where)
        listener = make(kind, host)
        if mark:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
        if kind == "transparent":
            transparent(listener)
        listener.bind((host, port))
        if kind != "udp":
            listener.listen(128)
        serve = serve_datagrams if kind == "udp" else serve_stream
        threading.Thread(target=serve, args=(listener, where), daemon=True).start()
    print(json.dumps({"listen": specs}), flush=True)
    threading.Event().wait()


def dial_one(spec):
    spec, _, mark = spec.partition("#")
    spec, _, source = spec.partition("@")
    kind, _, where = spec.partition(":")
    host, port = address(where)
    with make(kind, host) as dialled:
        dialled.settimeout(TIMEOUT)
        try:
            if mark:
                dialled.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(mark))
            if source:
                transparent(dialled)
                dialled.bind(address(source))
            dialled.connect((host, port))
            if kind == "udp":
                dialled.send(b"?")
            return json.loads(dialled.recv(2048))
        except (OSError, ValueError) as error:
            return {"error": getattr(error, "strerror", None) or str(error)}


def dial(specs):
    answers = [None] * len(specs)

    def one(number, spec):
        answers[number] = dial_one(spec)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(specs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(answers), flush=True)
    os._exit(0)


{"listen": listen, "dial": dial}[sys.argv[1]](sys.argv[2:])
