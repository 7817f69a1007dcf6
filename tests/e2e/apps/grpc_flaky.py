"""A gRPC server that fails first: the first N calls of a method `/flaky.Flaky/CODE-N[-PUSHBACK]` end with that code,
N is counted per method. Later ones return which try they were, as the caller's proxy says.

Usage: grpc_flaky.py IP:PORT
"""

import json
import sys
import threading
from concurrent import futures

import grpc

seen = {}
lock = threading.Lock()


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        code, count, *pushback = details.method.rpartition("/")[2].split("-")
        metadata = dict(details.invocation_metadata)

        def answer(request, context):
            with lock:
                seen[details.method] = seen.get(details.method, 0) + 1
                number = seen[details.method]
            print(json.dumps({"event": "call", "method": details.method, "left": context.time_remaining()}), flush=True)
            if number <= int(count):
                if pushback:
                    context.set_trailing_metadata([("grpc-retry-pushback-ms", pushback[0].replace("never", "-1"))])
                context.abort(grpc.StatusCode[code], "not yet")
            return metadata.get("grpc-previous-rpc-attempts", "none").encode() + b" " + request

        return grpc.unary_unary_rpc_method_handler(answer)


host = sys.argv[1].rpartition(":")[0]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers([Handler()])
port = server.add_insecure_port(sys.argv[1])
server.start()
print(json.dumps({"event": "ready", "listen": f"{host}:{port}"}), flush=True)
server.wait_for_termination()
