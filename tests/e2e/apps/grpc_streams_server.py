"""A gRPC server with every kind of call, on raw bytes: python grpc_streams_server.py ADDRESS

Prints where it listens, and then one line per call that its client gave up.
"""

import json
import os
import sys
import threading
import time
from concurrent import futures

import grpc


def say(**fields):
    print(json.dumps(fields), flush=True)


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("initial", "first"), ("seen-bin", metadata.get("blob-bin", b""))))
    context.set_trailing_metadata((("trailing", "last"), ("seen-text", metadata.get("text", ""))))
    return request[::-1]


def refuse(request, context):
    context.set_trailing_metadata((("why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % sûr\n")


def gather(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def scatter(request, context):
    for number in range(int(request)):
        yield b"%d" % number
    context.set_trailing_metadata((("sent", request.decode()),))


def break_off(request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost the rest")


def die(request, context):
    yield b"one"
    time.sleep(0.05)  # Until it is out.
    os._exit(1)


def converse(requests, context):
    for request in requests:
        yield b"re: " + request


def linger(request, context):
    """Says when its client is gone; ends only then."""
    gone = threading.Event()
    context.add_callback(gone.set)
    say(event="lingering", left=context.time_remaining())
    begin = time.monotonic()
    gone.wait(30)
    say(event="gone", call=request.decode(), after=time.monotonic() - begin)
    return b""


def linger_stream(request, context):
    yield b"first"
    yield linger(request, context)


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Scatter": grpc.unary_stream_rpc_method_handler(scatter),
    "BreakOff": grpc.unary_stream_rpc_method_handler(break_off),
    "Die": grpc.unary_stream_rpc_method_handler(die),
    "Converse": grpc.stream_stream_rpc_method_handler(converse),
    "Linger": grpc.unary_unary_rpc_method_handler(linger),
    "LingerStream": grpc.unary_stream_rpc_method_handler(linger_stream),
}

host = sys.argv[1].rpartition(":")[0]
server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=16),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("streams.Streams", HANDLERS),))
port = server.add_insecure_port(sys.argv[1])
server.start()
say(event="ready", listen=f"{host}:{port}")
server.wait_for_termination()
