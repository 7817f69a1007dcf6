"""The mesh of the soak: two applications that call, and a service of two versions with its replicas."""

import contextlib
import itertools
import os
import pathlib
import signal
import sys

from lab import ports
from lab.backend import BODY, start_program
from lab.mesh import Mesh, wait_until_ready
from lab.nginx import start_nginx
from lab.process import Process
from traffic import BIG_BYTES, BIG_PATH, VERSION_FIELD, Door

NAMESPACE, VERSIONS = "soak", ("v1", "v2")
UPSTREAM_IDLE_SECONDS = 5
_KEPT_LINES = 5_000
_SERVICES = "---\n".join([f"""\
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: {NAMESPACE} }}
spec:
  selector: {{ app: web }}
  ports:
    - {{ name: main, port: 80, targetPort: main, appProtocol: http }}
    - {{ name: echo, port: 81, targetPort: echo, appProtocol: http }}
    - {{ name: stream, port: 82, targetPort: stream, appProtocol: kubernetes.io/h2c }}
    - {{ name: raw, port: 7000, targetPort: raw, appProtocol: tcp }}
    - {{ name: site, port: 7001, targetPort: site, appProtocol: tcp }}
"""] + [f"""\
apiVersion: v1
kind: Service
metadata: {{ name: web-{version}, namespace: {NAMESPACE} }}
spec:
  selector: {{ app: web, version: {version} }}
  ports: [ {{ name: main, port: 80, targetPort: main, appProtocol: http }} ]
""" for version in VERSIONS])
_POLICY = f"""\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: web, namespace: {NAMESPACE} }}
spec:
  targetRefs: [ {{ kind: Service, name: web }}, {{ kind: Service, name: web-v1 }}, {{ kind: Service, name: web-v2 }} ]
  retries: {{ attempts: 2, on: [ connect-failure, refused-stream, reset-before-request ] }}
  loadBalancing: {{ algorithm: leastRequest }}
  breaker: {{}}
  outlierDetection: {{ successRate: {{}}, failurePercentage: {{}} }}
  limits: {{ requests: 5000, connections: 5000 }}
  rateLimits: [ {{ requests: 1000000, per: 1s, keys: [ {{ type: caller }}, {{ type: path }} ] }} ]
"""
_ROUTE = f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{{{ name: web, namespace: {NAMESPACE} }}}}
spec:
  parentRefs: [ {{{{ kind: Service, group: "", name: web, port: 80 }}}} ]
  rules:
    - backendRefs:
        - {{{{ name: web-v1, port: 80, weight: {{first}} }}}}
        - {{{{ name: web-v2, port: 80, weight: {{second}} }}}}
"""
_CLIENT = f"""\
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: {{{{ name: {{name}}, namespace: {NAMESPACE} }}}}
spec:
  address: 127.0.0.1
  serviceAccount: client
  ports: []
  mesh: {{{{ port: {{mesh}} }}}}
"""
_REPLICA = f"""\
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: {{{{ name: {{name}}, namespace: {NAMESPACE}, labels: {{{{ app: web, version: {{version}} }}}} }}}}
spec:
  address: 127.0.0.1
  serviceAccount: web
  ports:
    - {{{{ name: main, port: {{fronts[0]}}, protocol: http, application: "127.0.0.1:{{main}}" }}}}
    - {{{{ name: echo, port: {{fronts[1]}}, protocol: http, application: "127.0.0.1:{{echo}}" }}}}
    - {{{{ name: stream, port: {{fronts[2]}}, protocol: h2c, application: "127.0.0.1:{{stream}}" }}}}
    - {{{{ name: raw, port: {{fronts[3]}}, protocol: tcp, application: "127.0.0.1:{{raw}}" }}}}
    - {{{{ name: site, port: {{fronts[4]}}, protocol: tcp, application: "127.0.0.1:{{main}}" }}}}
  mesh: {{{{ port: {{mesh}} }}}}
"""


class Replica:
    """One instance of the service: its document and its sidecar."""

    def __init__(self, name, version, document, sidecar):
        self.name = name
        self.version = version
        self._document = document
        self.sidecar = sidecar

    def remove_document(self):
        """Nobody is to be sent to it any more."""
        self._document.unlink()


class Town(contextlib.ExitStack):
    """Starts all of it; ends all of it."""

    def __init__(self, folder, pillion):
        super().__init__()
        self._folder = folder
        self._mesh = Mesh("soak", pillion, folder / "mesh")
        self._names = itertools.count(1)
        self._writes = itertools.count(1)
        self._sites, self._application = {}, {}
        self.doors = []
        self.watched = {}
        """What lives from the beginning to the end, by name."""

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return super().__enter__()

    def _start(self):
        self._start_applications()
        self._write("services.yaml", _SERVICES)
        self._write("policy.yaml", _POLICY)
        self.set_weights(5, 5)
        control_plane = self._own(self._mesh.start_control_plane(kept_lines=_KEPT_LINES))
        self.watched["control plane"] = control_plane
        control_plane.first_line()
        for version in VERSIONS:
            replica = self.start_replica(version)
            self.watched[f"{replica.name} ({version})"] = self._own(replica.sidecar)
            wait_until_ready(replica.sidecar)
        for name in ("client-1", "client-2"):
            self._start_client(name)

    def _start_applications(self):
        files = self._folder / "files"
        files.mkdir()
        (files / BIG_PATH[1:]).write_bytes(b"\0" * BIG_BYTES)
        self._sites = {version: ports.free_port() for version in VERSIONS}
        servers = "".join(f"""\
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    add_header {VERSION_FIELD} {version};
    location / {{ return 200 "{BODY.decode()}"; }}
    location = {BIG_PATH} {{ root {files}; }}
  }}
""" for version, port in self._sites.items())
        site = self._own(start_nginx("web server", self._folder / "nginx", 1, http=servers))
        self._application = {name: ports.free_port() for name in ("echo", "raw", "stream")}
        echo, raw, stream = self._application.values()
        self._own(Process("application", [
            sys.executable, pathlib.Path(__file__).with_name("application.py"), echo, raw])).first_line()
        self._own(start_program("echo", stream))
        for port in self._sites.values():
            ports.wait_until_listening(site, port)

    def _start_client(self, name):
        mesh, outbound, raw, site = (ports.free_port() for _ in range(4))
        self._write(f"{name}.yaml", _CLIENT.format(name=name, mesh=mesh))
        sidecar = self.watched[name] = self._own(self._sidecar(name, "client", {
            "mesh": f"{ports.HOST}:{mesh}", "outbound_http": f"{ports.HOST}:{outbound}",
            "tcp": [f"{ports.HOST}:{raw}=web.{NAMESPACE}:7000", f"{ports.HOST}:{site}=web.{NAMESPACE}:7001"]}))
        wait_until_ready(sidecar)
        ports.wait_for_answer(sidecar, outbound, host=f"web.{NAMESPACE}")
        self.doors.append(Door(name, outbound, raw, site))

    def start_replica(self, version):
        """Writes the document of a new one and starts its sidecar, which the caller ends."""
        name, mesh = f"web-{next(self._names)}", ports.free_port()
        document = self._write(f"{name}.yaml", _REPLICA.format(
            name=name, version=version, mesh=mesh, fronts=[ports.free_port() for _ in range(5)],
            main=self._sites[version], **self._application))
        return Replica(name, version, document, self._sidecar(name, "web", {"mesh": f"{ports.HOST}:{mesh}"}))

    def _sidecar(self, name, account, settings):
        return self._mesh.start_sidecar(NAMESPACE, name, account, {
            "workers": 1, "access_log": "errors", "log": "info", "upstream_idle_timeout": f"{UPSTREAM_IDLE_SECONDS}s",
            **settings}, last_signal=signal.SIGTERM, kept_lines=_KEPT_LINES)

    def set_weights(self, first, second):
        """How much of the service's traffic goes to each version."""
        self._write("route.yaml", _ROUTE.format(first=first, second=second))

    def _write(self, name, text):
        """Replaces a document at once: nobody ever reads half of it."""
        path = self._mesh.documents / name
        new = self._folder / f"{next(self._writes)}.new"
        new.write_text(text)
        os.replace(new, path)
        return path

    def _own(self, process):
        self.callback(process.stop)
        return process
