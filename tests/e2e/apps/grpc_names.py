"""A gRPC server that answers every unary call, of whatever method, with its own name and the method's.

Usage: grpc_names.py IP:0 [NAME...]. It listens once per name.
"""

import json
import sys
from concurrent import futures

import grpc


class Handler(grpc.GenericRpcHandler):
    def __init__(self, name):
        self.name = name

    def service(self, details):
        def answer(_request, context):
            context.set_trailing_metadata([("x-app", self.name)])
            return f"{self.name} {details.method}".encode()

        return grpc.unary_unary_rpc_method_handler(answer)


def main():
    ip, _ = sys.argv[1].rsplit(":", 1)
    addresses, servers = {}, []
    for name in sys.argv[2:] or ["grpc"]:
        server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[Handler(name)])
        addresses[name] = f"{ip}:{server.add_insecure_port(f'{ip}:0')}"
        server.start()
        servers.append(server)
    print(json.dumps({"listen": next(iter(addresses.values())), "names": addresses}), flush=True)
    servers[0].wait_for_termination()


main()
