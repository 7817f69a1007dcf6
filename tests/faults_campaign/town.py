"""What a fault befalls: a Service of three replicas, a client and a name server, each a host; with Pillion or without."""

import contextlib
import json
import pathlib
import signal
import sys

from faults_campaign.network import CALM, SWITCH_ADDRESS, Host, tool
from lab import ports
from lab.mesh import Mesh
from lab.process import Failure, Process

NAMESPACE, NAME = "town", "web.town.svc.cluster.local"
POLICY = """\
apiVersion: pillion.dev/v1alpha1
kind: TrafficPolicy
metadata: { name: web, namespace: town }
spec:
  targetRefs: [ { kind: Service, name: web } ]
  timeouts: { request: 1800ms, perTry: 500ms, connect: 250ms }
  retries: { attempts: 2, on: [ gateway-error, connect-failure, reset ] }
  breaker: { consecutiveFailures: 3 }
  loadBalancing: { algorithm: leastRequest }
"""
_REPLICAS, _PORT, _FRONT, _MESH_PORT, _SIDECAR_GROUP = 3, 8080, 8081, 15008, 1337
_KEPT_LINES = 10_000
_SERVICE = f"""\
apiVersion: v1
kind: Service
metadata: {{ name: web, namespace: {NAMESPACE} }}
spec:
  selector: {{ app: web }}
  ports: [ {{ port: {_PORT}, targetPort: main, appProtocol: http }} ]
"""
_WORKLOAD = f"""\
apiVersion: pillion.dev/v1alpha1
kind: Workload
metadata: {{{{ name: {{host.name}}, namespace: {NAMESPACE}, labels: {{{{ app: {{account}} }}}} }}}}
spec:
  address: {{host.address}}
  serviceAccount: {{account}}
  ports: [ {{ports}} ]
  mesh: {{{{ port: {_MESH_PORT} }}}}
"""
_PORTS = f'{{ name: main, port: {_FRONT}, protocol: http, application: "127.0.0.1:{_PORT}" }}'


class Replica:
    """A host with an application, and with a sidecar where there is a mesh."""

    def __init__(self, town, host):
        self.host = host
        self.sidecar = None
        self._town = town
        host.rules(CALM)
        self.application = town.own(Process(
            f"{host.name}: application", [*host.under, sys.executable, town.program("replica"), host.name, _PORT]))
        self.application.first_line()

    @property
    def processes(self):
        """All of it."""
        return [process for process in (self.sidecar, self.application) if process]

    def signal(self, number, processes=None):
        """Sends it to all of the replica, or to these processes of it."""
        for process in processes or self.processes:
            process.signal(number)

    def start_application(self):
        """The same again, after its end."""
        self.application = self._town.own(self.application.again())

    def start_all(self):
        """The same for all of it."""
        self.start_application()
        if self.sidecar:
            self.sidecar = self._town.own(self.sidecar.again())


class Town(contextlib.ExitStack):
    """Starts all of it; ends all of it. Without a mesh when `pillion` is None."""

    def __init__(self, folder, pillion, policy):
        super().__init__()
        self._folder = folder
        self._pillion = pillion
        self._policy = policy
        self._mesh = self._client = self._names = self.nameserver = None
        self.sidecars, self.replicas = {}, []

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return super().__enter__()

    def _start(self):
        self._folder.mkdir()
        self._client = self.own(Host("client", 2))
        self._names = self.own(Host("names", 3))
        self.replicas = [Replica(self, self.own(Host(f"web-{number}", 10 + number))) for number in range(1, _REPLICAS + 1)]
        self.nameserver = self.own(Process("name server", [
            *self._names.under, sys.executable, self.program("nameserver"),
            *(replica.host.address for replica in self.replicas)]))
        self.nameserver.first_line()
        if self._pillion:
            self._start_mesh()
        self._warm_up()

    def _start_mesh(self):
        self._mesh = Mesh("town", self._pillion, self._folder / "mesh", host=SWITCH_ADDRESS)
        workloads = [_WORKLOAD.format(host=replica.host, account="web", ports=_PORTS) for replica in self.replicas]
        workloads.append(_WORKLOAD.format(host=self._client, account="client", ports=""))
        (self._mesh.documents / "town.yaml").write_text("---\n".join([_SERVICE, self._policy, *workloads]))
        control_plane = self.own(self._mesh.start_control_plane(kept_lines=_KEPT_LINES))
        control_plane.first_line()
        self.sidecars["control plane"] = control_plane
        for replica in self.replicas:
            replica.sidecar = self._sidecar(replica.host, "web", {})
        # The group is what `init` knows the sidecar by, so that its own connections are left alone.
        client = self._sidecar(self._client, "client", {
            "intercept": "redirect", "outbound_http": f"{ports.HOST}:15001", "dns": f"{ports.HOST}:15053",
            "dns_upstream": [f"{self._names.address}:53"]},
            [tool("setpriv"), "--regid", str(_SIDECAR_GROUP), "--clear-groups", "--pdeathsig", "keep"])
        self._client.run(self._pillion, "proxy", "init", "--wait", "10s", "--gid", _SIDECAR_GROUP, "--capture-dns")
        self.sidecars["client"] = client

    def _sidecar(self, host, account, settings, under=()):
        sidecar = self.own(self._mesh.start_sidecar(
            NAMESPACE, host.name, account,
            {"mesh": f"{host.address}:{_MESH_PORT}", "access_log": "errors", "log": "info", "workers": 1, **settings},
            under=[*host.under, *under], last_signal=signal.SIGKILL, kept_lines=_KEPT_LINES))
        sidecar.first_line()
        return sidecar

    def _warm_up(self):
        """A second of requests, all of which have to succeed in the end: connections are there when the fault comes."""
        for _ in range(10):
            wrong = [failure for _, _, failure, _ in self.requests(30, 1, lambda _: None) if failure]
            if not wrong:
                return
        raise Failure(f"requests fail before any fault: {', '.join(sorted(set(wrong)))}\n{self.logs()}")

    def requests(self, rate, seconds, meanwhile):
        """Has the client ask at a rate; `meanwhile` is called with the moment of its start, and may take as long."""
        results = self._folder / "results.json"
        client = self.own(Process("client", [
            *self._client.under, sys.executable, self.program("client"), self._names.address, NAME, _PORT, rate, seconds,
            results]))
        meanwhile(float(client.first_line()))
        if client.wait(seconds + 15) != 0:
            raise client.failure("did not end as it should")
        client.stop()
        return json.loads(results.read_text())

    def clusters(self):
        """What the client's sidecar says of its endpoints."""
        if not self._mesh:
            return ""
        admin = json.loads(self.sidecars["client"].first_line())["admin"]
        return self._client.run(sys.executable, "-c", "import sys, urllib.request as r; "
                                f"sys.stdout.write(r.urlopen('http://{admin}/clusters').read().decode())")

    def logs(self):
        """What all processes of the mesh have said."""
        replicas = {replica.host.name: replica.sidecar for replica in self.replicas if replica.sidecar}
        return "".join(f"{name}: {line}\n" for name, process in (self.sidecars | replicas).items() for line in process.log())

    @staticmethod
    def program(name):
        """The path of one of our programs."""
        return pathlib.Path(__file__).with_name(f"{name}.py")

    def own(self, what):
        """Has it stopped when the town ends."""
        self.callback(what.stop)
        return what
