"""A bare xDS client over gRPC, remote-controlled over HTTP: it decides nothing by itself but to acknowledge.

xds_probe.py ADDRESS SERVER FOLDER NODE (delta|sotw)

FOLDER holds root.pem, probe.pem and probe.key; NODE is the JSON of the xDS node.

POST /send    a request of the variant as JSON, sent as it is
POST /refuse  TEXT: the next response is refused with this text
POST /last    a request like /send, after which the client closes its half of the stream
POST /alone   PORT FILE: the first listener that came is written there as a response that Envoy can take from a file and
              serve by itself: at that port, in plaintext, answering 200
POST /restart a new stream on a new connection; forgets what came
GET  /        {"responses": [...], "status": how the stream ended, or null}
"""

import http.server
import json
import queue
import sys
import threading

import grpc
from envoy.config.cluster.v3 import cluster_pb2  # noqa: F401 (so that their Any can be shown)
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2  # noqa: F401
from envoy.config.route.v3 import route_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import json_format

ADDRESS, SERVER, FOLDER, NODE, VARIANT = sys.argv[1:]
DELTA = VARIANT == "delta"
REQUEST = discovery_pb2.DeltaDiscoveryRequest if DELTA else discovery_pb2.DiscoveryRequest


def file(name):
    with open(f"{FOLDER}/{name}", "rb") as opened:
        return opened.read()


class Session:
    """One stream, and what came on it."""

    def __init__(self):
        self.requests, self.responses, self.names = queue.Queue(), [], {}
        self.listeners = []
        self.status, self.refusal = None, None
        credentials = grpc.ssl_channel_credentials(file("root.pem"), file("probe.key"), file("probe.pem"))
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.secure_channel(SERVER, credentials, options)
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self.channel)
        method = stub.DeltaAggregatedResources if DELTA else stub.StreamAggregatedResources
        self.first = True
        self.stream = method(iter(self.requests.get, None))
        threading.Thread(target=self.read, daemon=True).start()

    def send(self, fields):
        request = json_format.ParseDict(fields, REQUEST())
        if self.first:
            json_format.Parse(NODE, request.node)
            self.first = False
        if not DELTA and "resourceNames" in fields:
            self.names[request.type_url] = list(request.resource_names)
        self.requests.put(request)

    def read(self):
        try:
            for response in self.stream:
                self.answer(response)
                self.listeners += listeners(response)
                self.responses.append(describe(response))
        except grpc.RpcError as error:
            self.status = f"{error.code().name}: {error.details()}"

    def answer(self, response):
        request = REQUEST(type_url=response.type_url, response_nonce=response.nonce)
        if not DELTA:
            request.version_info = response.version_info
            request.resource_names.extend(self.names.get(response.type_url, []))
        if self.refusal is not None:
            request.error_detail.code, request.error_detail.message = 3, self.refusal
            self.refusal = None
        self.requests.put(request)

    def close(self):
        self.requests.put(None)
        self.stream.cancel()
        self.channel.close()


def describe(response):
    kind = response.type_url.rsplit(".", 1)[-1]
    if not DELTA:
        return {"kind": kind, "version": response.version_info, "names": sorted(map(name, response.resources))}
    held = {resource.name: resource.version for resource in response.resources}
    return {"kind": kind, "resources": held, "removed": sorted(response.removed_resources)}


def name(packed):
    for message in (listener_pb2.Listener(), route_pb2.RouteConfiguration(), cluster_pb2.Cluster()):
        if packed.Unpack(message):
            return message.name
    message = endpoint_pb2.ClusterLoadAssignment()
    packed.Unpack(message)
    return message.cluster_name


def listeners(response):
    packed = [resource.resource if DELTA else resource for resource in response.resources]
    return [any for any in packed if any.type_url.endswith(".Listener")]


def alone(packed, port):
    listener = listener_pb2.Listener()
    packed.Unpack(listener)
    del listener.filter_chains[1:]
    chain = listener.filter_chains[0]
    chain.ClearField("transport_socket")
    chain.ClearField("filter_chain_match")
    manager = http_connection_manager_pb2.HttpConnectionManager()
    chain.filters[0].typed_config.Unpack(manager)
    manager.route_config.virtual_hosts[0].routes[0].direct_response.status = 200
    chain.filters[0].typed_config.Pack(manager)
    listener.address.socket_address.port_value = int(port)
    response = discovery_pb2.DiscoveryResponse(version_info="1", type_url=packed.type_url)
    response.resources.add().Pack(listener)
    return response.SerializeToString()


class Control(http.server.BaseHTTPRequestHandler):
    session = Session()

    def do_GET(self):
        session = Control.session
        self.reply({"responses": session.responses, "status": session.status})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        if self.path == "/send":
            Control.session.send(json.loads(body))
        elif self.path == "/last":
            Control.session.send(json.loads(body))
            Control.session.requests.put(None)
        elif self.path == "/alone":
            port, path = body.split(" ", 1)
            with open(path, "wb") as opened:
                opened.write(alone(Control.session.listeners[0], port))
        elif self.path == "/refuse":
            Control.session.refusal = body
        else:
            Control.session.close()
            Control.session = Session()
        self.reply({})

    def reply(self, answer):
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
