"""A TLS server that answers nothing: it writes down what it is sent after a handshake, and hangs up.

Arguments: an IP address, then JSON: {name: [certificate chain, key]}. One port for each name.
Prints {"listen": {name: "ip:port"}}, then per connection {"name", "error" or "received"}.
"""

import json
import socket
import ssl
import sys
import threading


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def serve(name, listener, context):
    while True:
        plain, _ = listener.accept()
        plain.settimeout(20)
        try:
            with context.wrap_socket(plain, server_side=True) as stream:
                say({"name": name, "received": stream.recv(65536).decode("latin-1")})
        except OSError as error:
            say({"name": name, "error": str(error) or type(error).__name__})


listening = {}
for name, (certificate, key) in json.loads(sys.argv[2]).items():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server((sys.argv[1], 0))
    listening[name] = "%s:%d" % listener.getsockname()
    threading.Thread(target=serve, args=(name, listener, context), daemon=True).start()
say({"listen": listening})
threading.Event().wait()
