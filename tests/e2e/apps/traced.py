"""An application with OpenTelemetry's SDK: one SERVER span per request, one CLIENT span per call, context passed on by it.

Arguments: the address to bind, then JSON {"name": service, "collector": OTLP/HTTP base or "", "propagators": "w3c" or "b3"
or "b3multi", "routes": {path: {"call": ["http://host/path", ...], "status": 200, "seconds": 0}}}. Calls go through the
address that was last posted to /proxy.
Prints {"listen": address}.
"""

import http.client
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

host, _, port = sys.argv[1].rpartition(":")
settings = json.loads(sys.argv[2])
provider = TracerProvider(resource=Resource.create({"service.name": settings["name"]}))
if settings.get("collector"):
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint=settings["collector"] + "/v1/traces")))
tracer = provider.get_tracer("traced")
propagator = {"w3c": TraceContextTextMapPropagator, "b3": B3SingleFormat, "b3multi": B3MultiFormat}[
    settings.get("propagators", "w3c")
]()
proxy = []


def call(url):
    parts = urlsplit(url)
    with tracer.start_as_current_span(f"call {parts.hostname}", kind=SpanKind.CLIENT):
        headers = {"Host": parts.netloc}
        propagator.inject(headers)
        connection = http.client.HTTPConnection(proxy[-1], timeout=30)
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, dict(response.getheaders())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        proxy.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.answer(200, {})

    def do_GET(self):
        route = settings["routes"].get(urlsplit(self.path).path, {})
        # Fields in lower case, as propagators ask for them.
        carrier = {name.lower(): value for name, value in self.headers.items()}
        context = propagator.extract(carrier)
        with tracer.start_as_current_span(f"serve {settings['name']}", context=context, kind=SpanKind.SERVER):
            time.sleep(route.get("seconds", 0))
            calls = [call(url) for url in route.get("call", [])]
        status = route.get("status", 200)
        self.answer(status[0] if isinstance(status, list) and len(status) == 1 else self.next(route), {
            "headers": carrier, "calls": calls,
        })

    def next(self, route):
        status = route.get("status", 200)
        return status.pop(0) if isinstance(status, list) else status

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer((host, int(port)), Handler)
print(json.dumps({"listen": f"{host}:{server.server_address[1]}"}), flush=True)
server.serve_forever()
