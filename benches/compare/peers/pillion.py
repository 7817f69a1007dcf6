"""Pillion as it is used: a control plane with a folder of documents, and one or two sidecars."""

import json
import subprocess
import time

from lab import ports
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
    documents = it.write("documents.yaml", _SERVICE.format(
        protocol=_KUBERNETES_NAME[protocol], own=protocol, client_mesh=client_mesh,
        port=ports.free_port() if pair else back_end,
        application=f', application: "127.0.0.1:{back_end}"' if pair else "",
        mesh=f"  mesh: {{ port: {server_mesh} }}" if pair else ""))
    state, listen = it.folder("state"), f"{ports.HOST}:{ports.free_port()}"
    control_plane = it.helper(Process(f"{it.name}: control plane", [
        it.lab.pillion, "control-plane", "--config", documents.parent, "--state", state, "--listen", listen,
        "--admin", f"{ports.HOST}:0"]))
    control_plane.first_line()
    shared = {"namespace": "bench", "control_plane": listen, "control_plane_root": str(state / "root.pem")}
    if pair:
        _sidecar(it, "backend-1", "backend", state, {**shared, "mesh": f"{ports.HOST}:{server_mesh}"})
    it.port = ports.free_port()
    outward = {"tcp": [f"{ports.HOST}:{it.port}=backend.bench:80"], "outbound_http": "off"}
    if protocol != "tcp":
        outward = {"outbound_http": f"{ports.HOST}:{it.port}"}
    _sidecar(it, "client", "client", state, {**shared, "mesh": f"{ports.HOST}:{client_mesh}", **outward})
    # The client comes first: it is the one that is started again where starting is measured.
    it.counted.reverse()


def _sidecar(it, name, account, state, settings):
    """Starts a sidecar and waits until it says that it is ready."""
    command = [it.lab.pillion, "certs", "token", "--state", state, "--namespace", "bench", "--service-account", account]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"{it.name}: `{' '.join(map(str, command))}` ended with {done.returncode}: {done.stderr}")
    token = it.write("token", done.stdout.strip())
    token.chmod(0o600)
    health = ports.free_port()
    bootstrap = it.write("bootstrap.json", json.dumps({
        "outbound_http": "off", "admin": f"{ports.HOST}:0", "access_log": "off", "log": "warn", **settings,
        "workload": name, "service_account": account, "join_token_file": str(token), "workers": it.workers,
        "health": f"{ports.HOST}:{health}"}))
    process = it.proxy(Process(f"{it.name}: sidecar {name}", [
        *it.under, it.lab.pillion, "proxy", "--bootstrap", bootstrap]))
    process.admin = json.loads(process.first_line())["admin"]
    ports.wait_for_answer(process, health, "/ready")


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
