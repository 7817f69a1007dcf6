"""gRPC's own xDS client, remote-controlled over HTTP.

xds_client.py ADDRESS BOOTSTRAP TARGET

GET /call/N  makes N calls, one after the other: {"answers": {TEXT: COUNT}, "errors": {TEXT: COUNT}}
GET /csds    what the client thinks of the configuration that it was sent, by Client Status Discovery Service:
             [{"kind": TEXT, "name": TEXT, "status": "ACKED" | "NACKED" | ..., "error": TEXT}]
"""

import collections
import http.server
import json
import os
import sys

ADDRESS, BOOTSTRAP, TARGET = sys.argv[1:]
os.environ["GRPC_XDS_BOOTSTRAP"] = BOOTSTRAP

import grpc.experimental  # noqa: E402 (it reads the variable)
from envoy.admin.v3 import config_dump_shared_pb2  # noqa: E402
from grpc_csds import ClientStatusDiscoveryServiceServicer as Csds  # noqa: E402

FALLBACK = grpc.experimental.insecure_channel_credentials()
CHANNEL = grpc.secure_channel(TARGET, grpc.xds_channel_credentials(FALLBACK))
HELLO = CHANNEL.unary_unary("/shop.Greeter/Hello")


def call(count):
    answers, errors = collections.Counter(), collections.Counter()
    for _ in range(count):
        try:
            answers[HELLO(b"", timeout=10).decode()] += 1
        except grpc.RpcError as error:
            errors[f"{error.code().name}: {error.details()}"] += 1
    return {"answers": answers, "errors": errors}


def csds():
    status = config_dump_shared_pb2.ClientResourceStatus.Name
    return [
        {
            "kind": resource.type_url.rsplit(".", 1)[-1],
            "name": resource.name,
            "status": status(resource.client_status),
            "error": resource.error_state.details,
        }
        for client in Csds.FetchClientStatus(None, None).config
        for resource in client.generic_xds_configs
    ]


class Control(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = csds() if self.path == "/csds" else call(int(self.path.removeprefix("/call/")))
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


def main():
    host, port = ADDRESS.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Control)
    print(json.dumps({"listen": f"{host}:{server.server_port}"}), flush=True)
    server.serve_forever()


main()
