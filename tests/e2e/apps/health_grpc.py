"""A gRPC server with gRPC's health service (grpc.health.v1): every call of /shop.Greeter/Hello is answered with its name.
While the file FLAG is there it says NOT_SERVING of the service `shop.Greeter`; it knows no other service.

health_grpc.py ADDRESS NAME FLAG
"""

import json
import os
import sys
from concurrent import futures

import grpc

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


def main():
    address, name, flag = sys.argv[1:]

    def check(request, context):
        if request != b"\x0a\x0cshop.Greeter":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return NOT_SERVING if os.path.exists(flag) else SERVING

    hello = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("shop.Greeter", {"Hello": hello}),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(check)}),
    ))
    port = server.add_insecure_port(address)
    server.start()
    print(json.dumps({"listen": f"{address.rsplit(':', 1)[0]}:{port}"}), flush=True)
    server.wait_for_termination()


main()
