"""The scenarios, in the order in which they are run and shown. A new one is a file here and a line in `ALL`."""

from scenarios import one_hop_http1, one_hop_http2

ALL = [one_hop_http1.SCENARIO, one_hop_http2.SCENARIO]
