"""Pillion as it is used: a control plane with a folder of documents, and one or two sidecars."""

import time

from lab import ports
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
"""
_KUBERNETES_NAME = {"http": "http", "h2c": "kubernetes.io/h2c", "tcp": "tcp"}


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


def pair_tcp(it):
    """Two sidecars, and a local TCP port that leads through both."""
    _mesh(it, "tcp", it.lab.back_end.http1, pair=True)
    _prove_mutual_tls(it, "pillion_tcp_connections_total")


def _mesh(it, protocol, back_end, pair):
    """Starts the control plane, then the sidecars, the server's first."""
    client_mesh, server_mesh = ports.free_port(), ports.free_port()
    mesh = Mesh(it.name, it.lab.pillion, it.folder("mesh"))
    (mesh.documents / "documents.yaml").write_text(_SERVICE.format(
        protocol=_KUBERNETES_NAME[protocol], own=protocol, client_mesh=client_mesh,
        port=ports.free_port() if pair else back_end,
        application=f', application: "127.0.0.1:{back_end}"' if pair else "",
        mesh=f"  mesh: {{ port: {server_mesh} }}" if pair else ""))
    it.helper(mesh.start_control_plane()).first_line()
    if pair:
        _sidecar(it, mesh, "backend-1", "backend", {"mesh": f"{ports.HOST}:{server_mesh}"})
    it.port = ports.free_port()
    outward = {"tcp": [f"{ports.HOST}:{it.port}=backend.bench:80"], "outbound_http": "off"}
    if protocol != "tcp":
        outward = {"outbound_http": f"{ports.HOST}:{it.port}"}
    _sidecar(it, mesh, "client", "client", {"mesh": f"{ports.HOST}:{client_mesh}", **outward})
    # The client comes first: it is the one that is started again where starting is measured.
    it.counted.reverse()


def _sidecar(it, mesh, name, account, settings):
    """Starts a sidecar and waits until it says that it is ready."""
    wait_until_ready(it.proxy(mesh.start_sidecar(
        "bench", name, account, {**settings, "workers": it.workers}, under=it.under)))


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
