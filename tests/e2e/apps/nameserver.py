"""A nameserver: `nameserver.py ADDRESS ANSWER`. Every question for an A record has ANSWER, for a second; others have none."""

import json
import socket
import struct
import sys
import threading

host, port = sys.argv[1].rsplit(":", 1)
record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(sys.argv[2])


def answer(query):
    end = query.index(b"\0", 12) + 5  # The name's end, type, class.
    found = query[end - 4 : end - 2] == b"\0\1"
    return query[:2] + struct.pack(">HHHHH", 0x8180, 1, found, 0, 0) + query[12:end] + (record if found else b"")


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
