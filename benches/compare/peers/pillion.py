"""Pillion as it is used: a control plane with a folder of documents, and one or two sidecars."""

import dataclasses
import json
import pathlib
import subprocess
import time
from types import SimpleNamespace

from lab import ports
from lab.certificates import Identity
from lab.process import Failure, Process

_SERVICE = """\
apiVersion: v1
kind: Service
metadata: {{ name: backend, namespace: bench }}
spec:
  selector: {{ app: backend }}
  ports: [ {{ port: 80, targetPort: main, appProtocol: {protocol} }} ]
---
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: {{ name: backend-1, namespace: bench, labels: {{ app: backend }} }}
spec:
  address: 127.0.0.1
  serviceAccount: backend
  ports: [ {{ name: main, port: {port}, protocol: {own}{application} }} ]
{mesh}
---
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: {{ name: client, namespace: bench }}
spec:
  address: 127.0.0.1
  serviceAccount: client
  ports: []
  mesh: {{ port: {client_mesh} }}
"""
_KUBERNETES_NAME = {"http": "http", "h2c": "kubernetes.io/h2c", "grpc": "grpc", "tcp": "tcp"}


def one_hop(it):
    """The client's sidecar alone: the back end is outside the mesh. HTTP/1.1 and HTTP/2 come in at the same port."""
    _mesh(it, "http", it.lab.back_end.http1, pair=False)


def pair(it):
    """Two sidecars with mutual TLS between them."""
    _mesh(it, "http", it.lab.back_end.http1, pair=True)
    _prove_mutual_tls(it, "pillion_requests_total")


def pair_http2(it):
    """The same with a back end that speaks HTTP/2."""
    _mesh(it, "h2c", it.lab.back_end.http2, pair=True)
    _prove_mutual_tls(it, "pillion_requests_total")


def pair_grpc(it):
    """The same with a back end that is called by gRPC."""
    _mesh(it, "grpc", it.lab.back_end.grpc, pair=True)
    _prove_mutual_tls(it, "pillion_requests_total")


def pair_tcp(it, back_end="http1"):
    """Two sidecars, and a local TCP port that leads through both, to a port of the back end."""
    _mesh(it, "tcp", getattr(it.lab.back_end, back_end), pair=True)
    _prove_mutual_tls(it, "pillion_tcp_connections_total")


def accepts_mutual_tls(it):
    """The back end's sidecar alone; the client has a certificate of the mesh and comes to the application's port."""
    plan = _plan(it, "http", it.lab.back_end.http1, pair=True)
    _sidecar(it, "backend-1", "backend", plan, {"mesh": f"{ports.HOST}:{plan.server_mesh}"})
    _certs(it, "workload", "--ca", plan.state, "--namespace", "bench", "--service-account", "client",
           "--out", plan.state, "--name", "client")
    client = Identity(plan.state / "client.key", plan.state / "client.pem")
    it.tls, it.port = SimpleNamespace(root=plan.state / "root.pem", client=client), plan.front


def _mesh(it, protocol, back_end, pair):
    """Starts the control plane, then the sidecars, the server's first."""
    plan = _plan(it, protocol, back_end, pair)
    if pair:
        _sidecar(it, "backend-1", "backend", plan, {"mesh": f"{ports.HOST}:{plan.server_mesh}"})
    it.port = ports.free_port()
    outward = {"tcp": [f"{ports.HOST}:{it.port}=backend.bench:80"]}
    if protocol != "tcp":
        outward = {"outbound_http": f"{ports.HOST}:{it.port}"}
    _sidecar(it, "client", "client", plan, {"mesh": f"{ports.HOST}:{plan.client_mesh}", **outward})
    # The client comes first: it is the one that is started again where starting is measured.
    it.counted.reverse()


@dataclasses.dataclass
class _Plan:
    """A control plane that runs, and what it was told."""

    state: pathlib.Path
    listen: str
    client_mesh: int
    server_mesh: int
    front: int
    """Where the back end's sidecar stands before its application."""


def _plan(it, protocol, back_end, pair):
    """Starts the control plane. Without a pair, the back end is a workload outside the mesh."""
    plan = _Plan(it.folder("state"), f"{ports.HOST}:{ports.free_port()}",
                 ports.free_port(), ports.free_port(), ports.free_port())
    documents = it.write("documents.yaml", _SERVICE.format(
        protocol=_KUBERNETES_NAME[protocol], own=protocol, client_mesh=plan.client_mesh,
        port=plan.front if pair else back_end,
        application=f', application: "127.0.0.1:{back_end}"' if pair else "",
        mesh=f"  mesh: {{ port: {plan.server_mesh} }}" if pair else ""))
    control_plane = it.helper(Process(f"{it.name}: control plane", [
        it.pillion, "control-plane", "--config", documents.parent, "--state", plan.state, "--listen", plan.listen,
        "--admin", f"{ports.HOST}:0"]))
    control_plane.first_line()
    return plan


def _sidecar(it, name, account, plan, settings):
    """Starts a sidecar and waits until it says that it is ready."""
    token = it.write("token", _certs(it, "token", "--state", plan.state, "--namespace", "bench",
                                     "--service-account", account))
    token.chmod(0o600)
    health = ports.free_port()
    bootstrap = it.write("bootstrap.json", json.dumps({
        "outbound_http": "off", "admin": f"{ports.HOST}:0", "access_log": "off", "log": "warn", **settings,
        "namespace": "bench", "workload": name, "service_account": account, "join_token_file": str(token),
        "control_plane": plan.listen, "control_plane_root": str(plan.state / "root.pem"),
        "workers": it.workers, "health": f"{ports.HOST}:{health}"}))
    process = it.proxy(Process(f"{it.name}: sidecar {name}", [it.pillion, "proxy", "--bootstrap", bootstrap]))
    process.admin = json.loads(process.first_line())["admin"]
    ports.wait_for_answer(process, health, "/ready")


def _certs(it, *arguments):
    """Runs `pillion certs` and returns what it says."""
    command = [str(word) for word in (it.pillion, "certs", *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{it.name}: `{' '.join(command)}` ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


def _prove_mutual_tls(it, metric):
    """One request, and the client's own word that it travelled in mutual TLS: a pair without it would be no pair."""
    client = it.counted[0]
    ports.wait_for_answer(client, it.port, host=it.host)
    admin, end = int(client.admin.rsplit(":", 1)[1]), time.monotonic() + 5
    while True:
        # A connection is counted once both of its ends have gone.
        _, metrics = ports.get(admin, "/metrics")
        lines = [line for line in metrics.decode().splitlines() if line.startswith(metric + "{")]
        if any('tls="mutual"' in line for line in lines):
            return
        if time.monotonic() > end:
            raise client.failure(f'{metric} has counted nothing with tls="mutual": {lines}')
        time.sleep(0.05)
