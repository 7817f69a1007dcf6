"""Asks for the status of xDS clients by gRPC's own stubs: both methods, which must agree.

csds.py {"address": "IP:PORT", "request": ClientStatusRequest as JSON}; prints the answer as JSON.
"""

import json
import sys

import grpc
from envoy.config.cluster.v3 import cluster_pb2  # noqa: F401 (so that their Any can be shown)
from envoy.config.endpoint.v3 import endpoint_pb2  # noqa: F401
from envoy.config.listener.v3 import listener_pb2  # noqa: F401
from envoy.config.route.v3 import route_pb2  # noqa: F401
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.any_pb2 import Any

ARGUMENT = json.loads(sys.argv[1])
TIMEOUT = 20


def shown(answer):
    """Contents of contents may be of types that are not known here: their names are enough."""
    configs = []
    for config in answer.config:
        resources = []
        for resource in config.generic_xds_configs:
            name = None
            if resource.HasField("xds_config"):
                inner = Any()
                inner.CopyFrom(resource.xds_config)
                kind = descriptor_pool.Default().FindMessageTypeByName(inner.TypeName())
                from google.protobuf import message_factory

                message = message_factory.GetMessageClass(kind)()
                inner.Unpack(message)
                name = getattr(message, "name", None) or getattr(message, "cluster_name", None)
                resource.ClearField("xds_config")
            described = json_format.MessageToDict(resource)
            described["xdsConfig"] = {"name": name} if name is not None else None
            described.setdefault("versionInfo", "")
            resources.append(described)
        configs.append({"node": json_format.MessageToDict(config.node), "genericXdsConfigs": resources})
    return configs


def main():
    request = json_format.ParseDict(ARGUMENT["request"], csds_pb2.ClientStatusRequest())
    with grpc.insecure_channel(ARGUMENT["address"]) as channel:
        stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(channel)
        try:
            fetched = stub.FetchClientStatus(request, timeout=TIMEOUT)
            streamed = list(stub.StreamClientStatus(iter([request, request]), timeout=TIMEOUT))
        except grpc.RpcError as error:
            print(json.dumps({"error": f"{error.code()}: {error.details()}"}))
            return
    assert len(streamed) == 2, streamed
    ids = [[config.node.id for config in answer.config] for answer in (fetched, *streamed)]
    assert ids[0] == ids[1] == ids[2], ids
    print(json.dumps({"error": None, "config": shown(fetched)}))


main()
