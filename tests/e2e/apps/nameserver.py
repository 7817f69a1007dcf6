"""A nameserver: `nameserver.py ADDRESS ANSWER`. Every question for an A record has ANSWER, for a second; others have none.

With `@FILE` as ANSWER it is the zone, read for each question: JSON, `{"name": {"a": [..], "aaaa": [..], "ttl": 1, "code": 0}}`.
A name that is not in it does not exist. `code` is the answer's RCODE instead.
"""

import json
import socket
import struct
import sys
import threading

host, port = sys.argv[1].rsplit(":", 1)
NXDOMAIN = 3


def look_up(name, kind):
    """RCODE, TTL and data of the records."""
    if not sys.argv[2].startswith("@"):
        return 0, 1, [socket.inet_aton(sys.argv[2])] if kind == 1 else []
    with open(sys.argv[2][1:]) as file:
        entry = json.load(file).get(name)
    if entry is None or entry.get("code"):
        return NXDOMAIN if entry is None else entry["code"], 0, []
    field, family = {1: ("a", socket.AF_INET), 28: ("aaaa", socket.AF_INET6)}.get(kind, ("", 0))
    return 0, entry.get("ttl", 1), [socket.inet_pton(family, text) for text in entry.get(field, [])]


def answer(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    end = at + 5  # The name's end, type, class.
    (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
    code, ttl, found = look_up(".".join(labels), kind)
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, ttl, len(data)) + data for data in found)
    return query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0) + query[12:end] + records


def serve_tcp(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            length = struct.unpack(">H", connection.recv(2))[0]
            said = answer(connection.recv(length))
            connection.sendall(struct.pack(">H", len(said)) + said)


listener = socket.create_server((host, int(port)))
threading.Thread(target=serve_tcp, args=(listener,), daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((host, int(port)))
print(json.dumps({"listen": sys.argv[1]}), flush=True)
while True:
    query, client = udp.recvfrom(4096)
    udp.sendto(answer(query), client)
