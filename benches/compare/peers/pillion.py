"""Pillion as it is used: a control plane with a folder of documents, and one or two sidecars."""

import dataclasses
import time
from types import SimpleNamespace

from lab import ports
from lab.certificates import Identity
from lab.mesh import Mesh, metric_lines, wait_until_ready

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
---
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: backend, namespace: bench }}
spec:
  targetRefs: [ {{ kind: Service, name: backend }} ]
  retries: {{ attempts: 2, on: [ connect-failure, refused-stream, reset-before-request ] }}
  breaker: {{}}
  outlierDetection: {{ successRate: {{}} }}
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
    state = plan.mesh.state
    plan.mesh.certs("workload", "--ca", state, "--namespace", "bench", "--service-account", "client",
                    "--out", state, "--name", "client")
    client = Identity(state / "client.key", state / "client.pem")
    it.tls, it.port = SimpleNamespace(root=state / "root.pem", client=client), plan.front


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
    """A mesh whose control plane runs, and what that was told."""

    mesh: Mesh
    client_mesh: int
    server_mesh: int
    front: int
    """Where the back end's sidecar stands before its application."""


def _plan(it, protocol, back_end, pair):
    """Starts the control plane. Without a pair, the back end is a workload outside the mesh."""
    plan = _Plan(Mesh(it.name, it.pillion, it.folder("mesh")), ports.free_port(), ports.free_port(), ports.free_port())
    (plan.mesh.documents / "documents.yaml").write_text(_SERVICE.format(
        protocol=_KUBERNETES_NAME[protocol], own=protocol, client_mesh=plan.client_mesh,
        port=plan.front if pair else back_end,
        application=f', application: "127.0.0.1:{back_end}"' if pair else "",
        mesh=f"  mesh: {{ port: {plan.server_mesh} }}" if pair else ""))
    it.helper(plan.mesh.start_control_plane()).first_line()
    return plan


def _sidecar(it, name, account, plan, settings):
    """Starts a sidecar and waits until it says that it is ready."""
    wait_until_ready(it.proxy(plan.mesh.start_sidecar(
        "bench", name, account, {**settings, **it.settings, "workers": it.workers}, under=it.under)))


def _prove_mutual_tls(it, metric):
    """One request, and the client's own word that it travelled in mutual TLS: a pair without it would be no pair."""
    client = it.counted[0]
    ports.wait_for_answer(client, it.port, host=it.host)
    end = time.monotonic() + 5
    while True:
        # A connection is counted once both of its ends have gone.
        lines = metric_lines(client, metric + "{")
        if any('tls="mutual"' in line for line in lines):
            return
        if time.monotonic() > end:
            raise client.failure(f'{metric} has counted nothing with tls="mutual": {lines}')
        time.sleep(0.05)
