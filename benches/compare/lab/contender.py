"""One contender of a scenario: its processes, and where its port is."""

import dataclasses
import pathlib

from lab.backend import BackEnd
from lab.certificates import Certificates
from lab.process import Process


@dataclasses.dataclass
class Lab:
    """What all contenders share."""

    folder: pathlib.Path
    builds: dict[str, pathlib.Path]
    """Pillion's binaries by the names of their contenders."""
    back_end: BackEnd
    certificates: Certificates
    _folders: int = 0

    def new_folder(self, name):
        """A path below the command's temporary folder that nobody has yet; not made."""
        self._folders += 1
        return self.folder / f"{self._folders}-{name.replace('/', '').replace(' ', '-').replace(',', '')}"


class Contender:
    """What a peer's function fills in: it starts processes here and sets `port`."""

    def __init__(self, name, lab, workers):
        self.name = name
        self.lab = lab
        self.workers = workers
        self.port = 0
        self.host = "backend.bench"
        self.tls = None
        """Who a client with mutual TLS trusts and what it shows (`root`, `client`), where the port takes that."""
        self.settings = {}
        """Further settings of Pillion's sidecars."""
        self.counted = []
        """The processes whose CPU time and memory count."""
        self.under = []
        """What runs Pillion's sidecars, where they are looked at from outside: a program and its arguments."""
        self._own = []

    @property
    def pillion(self):
        """The binary, of a contender that is a build of Pillion."""
        return self.lab.builds[self.name]

    def folder(self, part):
        """A new folder, not made yet."""
        return self.lab.new_folder(f"{self.name}-{part}")

    def write(self, part, text):
        """A new file with this text."""
        folder = self.folder(part)
        folder.mkdir()
        path = folder / part
        path.write_text(text)
        return path

    def proxy(self, process: Process):
        """A process that counts."""
        self.counted.append(self.helper(process))
        return process

    def helper(self, process: Process):
        """A process that ends with us, and does not count: a control plane."""
        self._own.append(process)
        return process

    def restart_proxy(self):
        """Ends the first process that counts and starts it again; returns the new one."""
        old = self.counted[0]
        new = old.again()
        self.counted[0] = new
        self._own[self._own.index(old)] = new
        return new

    def cpu_seconds(self):
        """CPU time of the counted processes so far."""
        return sum(process.cpu_seconds() for process in self.counted)

    def stop(self):
        """Ends all of its processes, the last one first."""
        for process in reversed(self._own):
            process.stop()
        self._own = []
