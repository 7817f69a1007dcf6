"""Hosts that are network namespaces: each with an interface and an address of its own, all on one switch.

None has a name that outlives it: a namespace is what the processes in it keep, and those end with us.
"""

import ctypes
import os
import shutil
import subprocess

from lab.process import Failure, Process

SWITCH_ADDRESS = "10.78.0.1"
CALM_MARK = 1
CALM = f"    ct mark set {CALM_MARK}"
"""What happens to packets of replicas before and after faults: their connections are marked."""
_CLONE_NEWNET = 0x40000000
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_PACKAGES = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "unshare": "util-linux", "setpriv": "util-linux"}


def check_tools():
    """Says at once what is missing, and what installs it."""
    if os.geteuid() != 0:
        raise Failure("network namespaces need root: sudo tests/faults")
    missing = sorted({package for program, package in _PACKAGES.items() if shutil.which(program, path=_PATH) is None})
    if missing:
        raise Failure(f"programs are missing: apt-get update && apt-get install --no-install-recommends {' '.join(missing)}")


def leave_for_own_network():
    """From here on we, and what we start, are in a new network namespace that holds the switch."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise Failure(f"cannot make a network namespace, which takes CAP_SYS_ADMIN: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "switch", "type", "bridge")
    run("ip", "address", "add", f"{SWITCH_ADDRESS}/24", "dev", "switch")
    run("ip", "link", "set", "switch", "up")


class Host:
    """A namespace with the interface `eth0`. It is there until it is stopped."""

    def __init__(self, name, number):
        self.name = name
        self.address = f"10.78.0.{number}"
        self._keeper = Process(f"host {name}", [tool("unshare"), "--net", "sh", "-c", "echo; exec sleep infinity"])
        self._keeper.first_line()
        self.under = [tool("nsenter"), f"--net=/proc/{self._keeper.pid}/ns/net", "--"]
        run("ip", "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", self._keeper.pid)
        run("ip", "link", "set", f"port{number}", "master", "switch", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "route", "add", "default", "via", SWITCH_ADDRESS)
        self._number = number

    def run(self, *command, said=None):
        """Runs a command here to its end; returns what it says."""
        return run(*self.under, *command, said=said)

    def rules(self, text):
        """Replaces what happens to packets that come and go; the lines are nftables'."""
        chains = "".join(
            f"  chain {hook} {{\n    type filter hook {hook} priority 0;\n    {own} lo accept\n{text}\n  }}\n"
            for hook, own in (("input", "iifname"), ("output", "oifname")))
        self.run("nft", "-f", "-", said=f"table inet fault\ndelete table inet fault\ntable inet fault {{\n{chains}}}\n")

    def stop(self):
        """Removes it; what still runs in it has to be ended before."""
        run("ip", "link", "delete", f"port{self._number}")
        self._keeper.stop()


def tool(program):
    """Its path, also where /usr/sbin is not in the path."""
    return shutil.which(program, path=_PATH) or program


def run(*command, said=None):
    """Runs a command to its end; returns what it says."""
    words = [tool(str(word)) if index == 0 else str(word) for index, word in enumerate(command)]
    done = subprocess.run(words, input=said, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _PATH})
    if done.returncode != 0:
        raise Failure(f"`{' '.join(words)}` ended with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
