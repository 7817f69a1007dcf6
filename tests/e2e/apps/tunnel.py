"""CONNECT over mutual TLS and HTTP/2: python tunnel.py ADDRESS TARGET ROOT CERTIFICATE KEY

Prints the status and, for a tunnel that was refused, the reason, as JSON.
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events

address, target, root, certificate, key = sys.argv[1:6]
host, _, port = address.rpartition(":")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.load_verify_locations(root)
context.load_cert_chain(certificate, key)
context.set_alpn_protocols(["h2"])
tls = context.wrap_socket(socket.create_connection((host, int(port)), timeout=20))
connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
connection.initiate_connection()
connection.send_headers(1, [(":method", "CONNECT"), (":authority", target)])
tls.sendall(connection.data_to_send())
answer = None
while answer is None:
    data = tls.recv(65536)
    assert data, "the connection was closed without an answer"
    for event in connection.receive_data(data):
        if answer is not None:
            break
        if isinstance(event, h2.events.ResponseReceived):
            answer = dict(event.headers)
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            answer = {":status": f"reset {event.error_code}"}
    tls.sendall(connection.data_to_send())
print(json.dumps({"status": answer[":status"], "reason": answer.get("x-pillion-reason")}))
