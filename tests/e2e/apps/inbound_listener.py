"""Asks the control plane, with the certificate of a workload, for the inbound listener NAME and prints it as JSON.

inbound_listener.py JSON: {"server": IP:PORT, "folder": FOLDER, "node": NODE, "name": NAME}

FOLDER holds root.pem, NODE.pem and NODE.key.
"""

import json
import queue
import sys

import grpc
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.ratelimit.v3 import rate_limit_pb2  # noqa: F401 (so that their Any can be shown)
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.rate_limit_descriptors.expr.v3 import expr_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import json_format

ASKED = json.loads(sys.argv[1])
URL = "type.googleapis.com/envoy.config.listener.v3.Listener"


def file(suffix):
    with open(f"{ASKED['folder']}/{suffix}", "rb") as opened:
        return opened.read()


node = ASKED["node"]
credentials = grpc.ssl_channel_credentials(file("root.pem"), file(f"{node}.key"), file(f"{node}.pem"))
with grpc.secure_channel(ASKED["server"], credentials) as channel:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=URL, resource_names_subscribe=[ASKED["name"]])
    requests = queue.Queue()  # The stream stays open until the answer is there.
    requests.put(request)
    request.node.id = f"shop/{node}"
    request.node.user_agent_name, request.node.user_agent_version = "pillion", "1"  # What a sidecar is sent.
    request.node.metadata.update({"namespace": "shop", "workload": node, "serviceAccount": node})
    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
    stream = stub.DeltaAggregatedResources(iter(requests.get, None), timeout=20)
    listener = listener_pb2.Listener()
    next(iter(stream)).resources[0].resource.Unpack(listener)
    requests.put(None)
    print(json_format.MessageToJson(listener, indent=None))
