"""A rate-limit service (envoy.service.ratelimit.v3) that counts for real, in fixed windows of an hour, by descriptor.

rate_limit_service.py ADDRESS LIMIT [PORT]

A descriptor's limit is its own override, or LIMIT. What has the key `allow` is never limited. PORT is bound in place of
the address's own, so that one that was killed can come again. Each question is printed:
{"event": "asked", "domain": TEXT, "descriptors": [[[KEY, VALUE], ...], ...], "left": SECONDS, "peer": TEXT}
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

ADDRESS, LIMIT, *PORT = sys.argv[1:]
UNITS = {1: 1, 2: 60, 3: 3600, 4: 86400}
START = time.time()
OK, OVER = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT


class Service(rls_pb2_grpc.RateLimitServiceServicer):
    def __init__(self):
        self.counts, self.lock = {}, threading.Lock()

    def ShouldRateLimit(self, request, context):
        asked = [[[entry.key, entry.value] for entry in told.entries] for told in request.descriptors]
        said = {"event": "asked", "domain": request.domain, "descriptors": asked, "left": context.time_remaining()}
        print(json.dumps(said | {"peer": dict(context.invocation_metadata()).get("x-forwarded-client-cert")}), flush=True)
        response = rls_pb2.RateLimitResponse(overall_code=OK)
        for told in request.descriptors:
            self.count(request.domain, told, response.statuses.add())
        if any(status.code == OVER for status in response.statuses):
            response.overall_code = OVER
            response.response_headers_to_add.add(key="x-limited-by", value="the service")
        else:
            response.request_headers_to_add.add(key="x-counted", value="yes")
            response.response_headers_to_add.add(key="x-counted-by", value="the service")
        return response

    def count(self, domain, told, status):
        entries = tuple((entry.key, entry.value) for entry in told.entries)
        status.code = OK
        if any(key == "allow" for key, _ in entries):
            return
        own = told.HasField("limit")
        limit, unit = (told.limit.requests_per_unit, told.limit.unit) if own else (int(LIMIT), 3)
        seconds, now = UNITS[unit], time.time()
        hits = told.hits_addend.value if told.HasField("hits_addend") else 1
        with self.lock:
            key = (domain, entries, (now - START) // seconds)
            self.counts[key] = used = self.counts.get(key, 0) + hits
        status.current_limit.name = "of-" + entries[-1][0]
        status.current_limit.requests_per_unit, status.current_limit.unit = limit, unit
        status.limit_remaining = max(0, limit - used)
        status.duration_until_reset.seconds = int(seconds - (now - START) % seconds)
        if used > limit:
            status.code = OVER


host = ADDRESS.rpartition(":")[0]
server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=[("grpc.so_reuseport", 0)])
rls_pb2_grpc.add_RateLimitServiceServicer_to_server(Service(), server)
port = server.add_insecure_port(f"{host}:{PORT[0]}" if PORT else ADDRESS)
server.start()
print(json.dumps({"listen": f"{host}:{port}"}), flush=True)
server.wait_for_termination()
