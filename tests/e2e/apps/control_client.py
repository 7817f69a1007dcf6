"""Calls the control plane as gRPC's own client does, with whatever credentials it is told to.

Argument: JSON {"to": "ip:port", "root": file, "cases": [...]}, or @ and a file with it. Each case: optionally "token", "authorization" (the
whole field), "cert" and "key" (files), and one of
  "csr": PEM (CreateCertificate; "tamper": flip a bit of its signature), "bytes": base64 (the same, any message)
  "names": [listener names] (delta ADS; "node": [namespace, workload, service account], "agent": name), "sotw": true
Prints a JSON list: "code", "details", and "chain" or "resources" and "removed".
"""

import base64
import json
import sys
import threading

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
CREATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
DEADLINE = 20


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def request_bytes(case):
    if "bytes" in case:
        return base64.b64decode(case["bytes"])
    csr = case["csr"]
    if case.get("tamper"):
        lines = csr.strip().split("\n")
        der = bytearray(base64.b64decode("".join(lines[1:-1])))
        der[-1] ^= 1
        csr = "\n".join([lines[0], base64.b64encode(der).decode(), lines[-1], ""])
    text = csr.encode()
    return b"\x0a" + varint(len(text)) + text + b"\x18" + varint(case.get("seconds", 3600))


def chain(response):
    """The strings of field 1."""
    found, at = [], 0
    while at < len(response):
        at += 1
        length, shift = 0, 0
        while True:
            byte = response[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        found.append(response[at:at + length].decode())
        at += length
    return found


def create(channel, metadata, case):
    call = channel.unary_unary(CREATE, request_serializer=bytes, response_deserializer=bytes)
    return {"code": "OK", "chain": chain(call(request_bytes(case), metadata=metadata, timeout=DEADLINE))}


def discover(channel, metadata, case):
    stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
    namespace, workload, account = case.get("node", ["shop", "client", "client"])
    sotw = case.get("sotw")
    request = discovery_pb2.DiscoveryRequest() if sotw else discovery_pb2.DeltaDiscoveryRequest()
    request.type_url = LISTENER
    request.node.id = f"{namespace}/{workload}"
    request.node.user_agent_name = case.get("agent", "pillion")
    request.node.user_agent_version = "1"
    request.node.metadata.update({"namespace": namespace, "workload": workload, "serviceAccount": account})
    done = threading.Event()

    def requests():
        """The client's half stays open until the answer is there."""
        yield request
        done.wait()

    names = case["names"]
    if sotw:
        request.resource_names.extend(names)
        stream = stub.StreamAggregatedResources(requests(), metadata=metadata, timeout=DEADLINE)
    else:
        request.resource_names_subscribe.extend(names)
        stream = stub.DeltaAggregatedResources(requests(), metadata=metadata, timeout=DEADLINE)
    try:
        answer = next(stream, None)
    finally:
        done.set()
    if answer is None:
        return {"code": stream.code().name, "details": stream.details()}
    if sotw:
        return {"code": "OK", "resources": len(answer.resources)}
    return {"code": "OK", "resources": [r.name for r in answer.resources], "removed": list(answer.removed_resources)}


def credentials(job, case):
    read = lambda path: open(path, "rb").read()
    pair = (read(case["key"]), read(case["cert"])) if "cert" in case else (None, None)
    return grpc.ssl_channel_credentials(read(job["root"]), *pair)


def attempt(job, case):
    metadata = [("authorization", "Bearer " + case["token"])] if "token" in case else []
    metadata += [("authorization", case["authorization"])] if "authorization" in case else []
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1),
               ("grpc.max_receive_message_length", -1)]
    with grpc.secure_channel(job["to"], credentials(job, case), options=options) as channel:
        try:
            return (discover if "names" in case else create)(channel, metadata, case)
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details()}


job = json.loads(open(sys.argv[1][1:]).read() if sys.argv[1].startswith("@") else sys.argv[1])
print(json.dumps([attempt(job, case) for case in job["cases"]]))
