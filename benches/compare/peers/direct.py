"""No proxy at all: what counts is the back end itself."""


def http1(it):
    """HTTP/1.1 straight to nginx."""
    it.counted.append(it.lab.back_end.process)
    it.port = it.lab.back_end.http1


def http2(it):
    """HTTP/2 straight to nginx."""
    it.counted.append(it.lab.back_end.process)
    it.port = it.lab.back_end.http2


def upload(it):
    """HTTP/1.1 straight to what takes uploads."""
    it.counted.append(it.lab.back_end.sink)
    it.port = it.lab.back_end.upload


def grpc(it):
    """Straight to what is called by gRPC."""
    it.counted.append(it.lab.back_end.echo)
    it.port = it.lab.back_end.grpc
