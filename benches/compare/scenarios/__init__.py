"""The scenarios, in the order in which they are run and shown. A new one is a file here and a line in `ALL`."""

from scenarios import (
    handshake, latency, memory, one_hop_http1, one_hop_http2, pair_grpc, pair_http1, pair_http2, pair_tcp, start)

ALL = [
    one_hop_http1.SCENARIO,
    one_hop_http2.SCENARIO,
    pair_http1.SCENARIO,
    pair_http2.SHARED,
    pair_http2.SINGLE,
    pair_grpc.UNARY,
    pair_grpc.STREAM,
    pair_tcp.KEPT,
    pair_tcp.NEW,
    pair_tcp.BULK,
    pair_tcp.BULK_UP,
    handshake.SCENARIO,
    latency.SCENARIO,
    memory.HTTP,
    memory.TCP,
    start.SCENARIO,
]
