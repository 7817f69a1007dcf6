"""A gRPC client: python grpc_streams_client.py PROXY AUTHORITY CASE. Ends 0 when all that CASE claims is true."""

import json
import queue
import sys

import grpc

proxy, authority, case = sys.argv[1:4]
channel = grpc.insecure_channel(
    proxy,
    options=[
        ("grpc.default_authority", authority),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    ],
)
DEADLINE = 20


def method(kind, name):
    return getattr(channel, kind)(f"/streams.Streams/{name}")


def failure(call):
    try:
        result = call()
        if not isinstance(result, bytes):
            result = list(result)
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"it did not fail but returned {result!r}")


def kinds():
    assert method("unary_unary", "Unary")(b"abc", timeout=DEADLINE) == b"cba"
    assert method("unary_unary", "Unary")(b"", timeout=DEADLINE) == b""
    total = method("stream_unary", "Gather")((b"x" * size for size in range(100)), timeout=DEADLINE)
    assert total == b"4950", total
    call = method("unary_stream", "Scatter")(b"200", timeout=DEADLINE)
    assert list(call) == [b"%d" % number for number in range(200)]
    assert dict(call.trailing_metadata()) == {"sent": "200"}, call.trailing_metadata()


def bidi():
    """Each answer is awaited before the next request is sent: nothing in between may wait for more."""
    requests = queue.Queue()
    answers = method("stream_stream", "Converse")(iter(requests.get, None), timeout=DEADLINE)
    for number in range(50):
        requests.put(b"%d" % number)
        assert next(answers) == b"re: %d" % number
    requests.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def metadata():
    blob = bytes(range(256))
    sent = (("text", "plain words"), ("blob-bin", blob))
    reply, call = method("unary_unary", "Unary").with_call(b"x", metadata=sent, timeout=DEADLINE)
    assert reply == b"x"
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["initial"], initial["seen-bin"]) == ("first", blob), initial
    assert trailing == {"trailing": "last", "seen-text": "plain words"}, trailing


def statuses():
    error = failure(lambda: method("unary_unary", "Refuse")(b"x", timeout=DEADLINE))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not now: 100 % sûr\n", error.details()
    assert dict(error.trailing_metadata())["why"] == "because", error.trailing_metadata()
    error = failure(lambda: method("unary_unary", "Nonsense")(b"x", timeout=DEADLINE))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    call = method("unary_stream", "BreakOff")(b"x", timeout=DEADLINE)
    assert [next(call), next(call)] == [b"one", b"two"]
    error = failure(lambda: next(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost the rest"), error


def large():
    message = bytes(range(256)) * (32 << 10)
    assert len(message) == 8 << 20
    assert method("unary_unary", "Unary")(message, timeout=DEADLINE) == message[::-1]
    answers = method("stream_stream", "Converse")(iter([message, message]), timeout=DEADLINE)
    assert list(answers) == [b"re: " + message] * 2


def deadline():
    error = failure(lambda: method("unary_unary", "Linger")(b"deadline", timeout=0.3))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def cancel():
    call = method("unary_stream", "LingerStream")(b"cancel", timeout=DEADLINE)
    assert next(call) == b"first"
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED


def broken():
    call = method("unary_stream", "Die")(b"x", timeout=DEADLINE)
    assert next(call) == b"one"
    error = failure(lambda: next(call))
    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL), error


def unavailable():
    error = failure(lambda: method("unary_unary", "Unary")(b"x", timeout=DEADLINE))
    reason = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
    print(json.dumps({"code": error.code().name, "details": error.details(), "reason": reason.get("x-pillion-reason")}))


globals()[case]()
