"""A TCP application: `lines.py ADDRESS [GREETING]`. Greets if it is told to, then gives back whatever comes.

`{peer}` in the greeting is the address that it sees as its caller's. Prints where it listens.
"""

import json
import socket
import sys
import threading


def listen(text):
    host, port = text.rsplit(":", 1)
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(1024)
    return listener


def serve(connection, peer, greeting):
    try:
        if greeting:
            connection.sendall(greeting.replace("{peer}", peer[0]).encode())
        while data := connection.recv(65536):
            connection.sendall(data)
    except OSError:
        pass
    finally:
        connection.close()


listener = listen(sys.argv[1])
greeting = sys.argv[2] if len(sys.argv) > 2 else ""
print(json.dumps({"listen": sys.argv[1]}), flush=True)
while True:
    connection, peer = listener.accept()
    threading.Thread(target=serve, args=(connection, peer, greeting), daemon=True).start()
