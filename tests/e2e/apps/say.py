"""A TCP client: `say.py HOST PORT [TEXT]`. Connects, says TEXT if there is one, and prints as JSON what came first.

`milliseconds` is from the call of connect to the first bytes; `error` is set when it came to nothing.
"""

import json
import socket
import sys
import time

host, port = sys.argv[1], int(sys.argv[2])
start = time.perf_counter()
answer, error = "", ""
try:
    connection = socket.create_connection((host, port), timeout=10)
    if len(sys.argv) > 3:
        connection.sendall(sys.argv[3].encode())
    answer = connection.recv(65536).decode()
    connection.close()
except OSError as problem:
    error = problem.strerror or str(problem)
elapsed = (time.perf_counter() - start) * 1000
print(json.dumps({"answer": answer, "error": error, "milliseconds": elapsed}))
