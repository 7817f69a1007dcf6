"""A gRPC server that knows nothing of a mesh: every call of /shop.Greeter/Hello is answered with its name.

greeter.py ADDRESS NAME
"""

import json
import sys
from concurrent import futures

import grpc


def main():
    address, name = sys.argv[1:]
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    handlers = grpc.method_handlers_generic_handler("shop.Greeter", {"Hello": handler})
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port(address)
    server.start()
    print(json.dumps({"listen": f"{address.rsplit(':', 1)[0]}:{port}"}), flush=True)
    server.wait_for_termination()


main()
