"""A mesh as a user would start it: a control plane with a folder of documents, and sidecars that it knows."""

import json
import subprocess

from lab import ports, tools
from lab.process import Failure, Process


class Mesh:
    """Its documents are what the caller writes into `documents`. Processes are started here and ended by the caller.

    `host` is the address at which sidecars find the control plane.
    """

    def __init__(self, name, pillion, folder, host=ports.HOST):
        self.name = name
        self._pillion = pillion
        self._folder = folder
        self._sidecars = 0
        folder.mkdir()
        self.documents = folder / "documents"
        self.documents.mkdir()
        self.state = folder / "state"
        self._listen = f"{host}:{ports.free_port()}"

    def start_control_plane(self, **how):
        """Starts it; it is there once it has printed a line. `how` goes to `Process`, here and below."""
        return Process(f"{self.name}: control plane", [
            self._pillion, "control-plane", "--config", self.documents, "--state", self.state,
            "--listen", self._listen, "--admin", f"{ports.HOST}:0"], **how)

    def start_sidecar(self, namespace, workload, account, settings, under=(), **how):
        """Starts a sidecar behind the command `under`; `wait_until_ready` has to follow."""
        self._sidecars += 1
        folder = self._folder / f"sidecar-{self._sidecars}"
        folder.mkdir()
        token = folder / "token"
        token.touch(0o600)
        token.write_text(self.certs(
            "token", "--state", self.state, "--namespace", namespace, "--service-account", account))
        health = ports.free_port()
        bootstrap = folder / "bootstrap.json"
        bootstrap.write_text(json.dumps({
            "outbound_http": "off", "admin": f"{ports.HOST}:0", "access_log": "off", "log": "warn", **settings,
            "namespace": namespace, "workload": workload, "service_account": account, "join_token_file": str(token),
            "control_plane": self._listen, "control_plane_root": str(self.state / "root.pem"),
            "metrics": "off",
            "health": f"{ports.HOST}:{health}"}))
        process = Process(f"{self.name}: sidecar {workload}", [
            *under, *tools.sidecar(self._pillion), "--bootstrap", bootstrap], **how)
        process.health = health
        return process

    def certs(self, *arguments):
        """Runs `pillion certs` and returns what it says."""
        command = [str(word) for word in (self._pillion, "certs", *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"{self.name}: `{' '.join(command)}` ended with {done.returncode}: {done.stderr}")
        return done.stdout.strip()


def wait_until_ready(sidecar):
    """Waits until a sidecar says that it is ready, and notes where its admin page is."""
    sidecar.admin = int(json.loads(sidecar.first_line())["admin"].rsplit(":", 1)[1])
    ports.wait_for_answer(sidecar, sidecar.health, "/ready")


def metric_lines(sidecar, metric):
    """The lines of `/metrics` that begin with this name."""
    _, text = ports.get(sidecar.admin, "/metrics")
    return [line for line in text.decode().splitlines() if line.startswith(metric)]
