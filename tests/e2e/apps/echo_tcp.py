"""A TCP server that sends back what it is sent. Argument: the address to listen on. Prints {"listen": "ip:port"}."""

import json
import socketserver
import sys


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


host, port = sys.argv[1].rsplit(":", 1)
with Server((host, int(port)), Echo) as server:
    print(json.dumps({"listen": "%s:%d" % server.server_address}), flush=True)
    server.serve_forever()
