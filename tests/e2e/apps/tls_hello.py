"""A server that speaks TLS itself: `tls_hello.py ADDRESS CERTIFICATE KEY TEXT`. Answers every request with TEXT."""

import http.server
import json
import ssl
import sys

host, port = sys.argv[1].rsplit(":", 1)


class Hello(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = sys.argv[4].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = http.server.ThreadingHTTPServer((host, int(port)), Hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(json.dumps({"listen": sys.argv[1]}), flush=True)
server.serve_forever()
