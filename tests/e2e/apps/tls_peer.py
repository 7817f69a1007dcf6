"""Speaks TLS, and HTTP/2 over it, with whatever certificate it is told to, and says what came of it.

Argument: JSON list of cases. Each: "to" (ip:port) and optionally "cert", "key" (files), "max" ("1.2"), "sni",
"alpn" (list), "bytes" (sent after the handshake instead of HTTP/2), "headers" (list of pairs: an HTTP/2 request).
Prints a JSON list of what happened to each: "version", "alpn", "settings" (the HTTP/2 peer
greeted), "status", "reason", "received" (bytes), "ticket" (a session could be resumed), "error".
"""

import json
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events


def context_for(case):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if case.get("max") == "1.2":
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if "cert" in case:
        context.load_cert_chain(case["cert"], case["key"])
    if case.get("alpn", ["h2"]):
        context.set_alpn_protocols(case.get("alpn", ["h2"]))
    return context


def speak_http2(stream, headers, outcome):
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    if headers:
        connection.send_headers(1, [tuple(pair) for pair in headers], end_stream=True)
    stream.sendall(connection.data_to_send())
    while True:
        received = stream.recv(65536)
        if not received:
            outcome.setdefault("error", "closed")
            return
        for event in connection.receive_data(received):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                outcome["settings"] = True
                if not headers:
                    return
            elif isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                outcome["status"] = int(fields[":status"])
                outcome["reason"] = fields.get("x-pillion-reason", "")
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                return
            elif isinstance(event, h2.events.ConnectionTerminated):
                outcome["error"] = f"GOAWAY {event.error_code}"
                return


def speak_bytes(stream, data, outcome):
    stream.sendall(data.encode("latin-1"))
    received = b""
    while chunk := stream.recv(65536):
        received += chunk
    outcome["received"] = received.decode("latin-1")


def attempt(case):
    outcome = {}
    host, port = case["to"].rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=20) as plain:
            with context_for(case).wrap_socket(plain, server_hostname=case.get("sni")) as stream:
                outcome["version"] = stream.version()
                outcome["alpn"] = stream.selected_alpn_protocol()
                if "bytes" in case:
                    speak_bytes(stream, case["bytes"], outcome)
                else:
                    speak_http2(stream, case.get("headers"), outcome)
                # Tickets come before the first byte of HTTP.
                outcome["ticket"] = bool(stream.session and stream.session.has_ticket)
    except OSError as error:
        outcome["error"] = str(error) or type(error).__name__
    return outcome


print(json.dumps([attempt(case) for case in json.loads(sys.argv[1])]))
