"""Makes unary gRPC calls one after the other and prints what came of each, as JSON lines.

Usage: grpc_call.py IP:PORT AUTHORITY METHOD[,KEY=VALUE...]...
"""

import json
import sys

import grpc

OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.default_authority", sys.argv[2])]

with grpc.insecure_channel(sys.argv[1], options=OPTIONS) as channel:
    for call in sys.argv[3:]:
        method, *metadata = call.split(",")
        invoke = channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        metadata = [tuple(entry.split("=", 1)) for entry in metadata]
        try:
            reply, done = invoke.with_call(b"hello", metadata=metadata, timeout=20)
        except grpc.RpcError as error:
            reply, done = b"", error
        fields = [*(done.initial_metadata() or ()), *(done.trailing_metadata() or ())]
        said = {"code": done.code().name, "details": done.details(), "reply": reply.decode()}
        print(json.dumps(said | {"fields": {name: value for name, value in fields if isinstance(value, str)}}))
