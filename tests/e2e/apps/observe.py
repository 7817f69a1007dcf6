"""A sidecar that lies: opens pillion.observe.v1.Observe/Connect, or with "load" the stream of load reports, as somebody and says that it is somebody else.

observe.py {"address": "IP:PORT", "folder": FOLDER or null, "name": NAME, "node": NODE, "load": BOOL}; FOLDER holds root.pem, NAME.pem
and NAME.key. Prints how the stream ended, or what was asked first: the bytes of the message, in hexadecimal.
"""

import json
import queue
import sys

import grpc
from envoy.config.core.v3 import base_pb2
from google.protobuf import json_format

ARGUMENT = json.loads(sys.argv[1])


def field(number, content):
    """A length-delimited field; contents here are short."""
    assert len(content) < 1 << 14
    size = bytes([len(content) & 0x7F | 0x80, len(content) >> 7])
    return bytes([number << 3 | 2]) + size + content


def file(name):
    with open(f"{ARGUMENT['folder']}/{name}", "rb") as opened:
        return opened.read()


def main():
    key, chain = None, None
    if ARGUMENT["name"]:
        key, chain = file(f"{ARGUMENT['name']}.key"), file(f"{ARGUMENT['name']}.pem")
    credentials = grpc.ssl_channel_credentials(file("root.pem"), key, chain)
    node = json_format.ParseDict(ARGUMENT["node"], base_pb2.Node()).SerializeToString()
    reports = queue.Queue()
    load = ARGUMENT.get("load")
    reports.put(field(1, node) if load else field(1, field(1, node)))
    path = "/pillion.observe.v1.Observe/Connect"
    if load:
        path = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
    with grpc.secure_channel(ARGUMENT["address"], credentials) as channel:
        same = lambda message: message  # noqa: E731
        connect = channel.stream_stream(path, same, same)
        asks = connect(iter(reports.get, None), timeout=20)
        try:
            print(json.dumps({"asked": next(asks).hex()}))
        except grpc.RpcError as error:
            print(json.dumps({"code": error.code().name, "details": error.details()}))
        asks.cancel()


main()
