"""The faults. Each befalls the first of three replicas (or the name server), lasts as long as `rest` does, and is healed."""

import dataclasses
import signal
from collections.abc import Callable

from faults_campaign.network import CALM, CALM_MARK

VICTIM = "web-1"
_LOSS_PERCENT = 20
_FLAP_SECONDS = 1


@dataclasses.dataclass
class Fault:
    """Its name, what it is, and what does it."""

    name: str
    what: str
    happen: Callable


def _none(_town, rest):
    rest()


def _kill(town, rest):
    replica = town.replicas[0]
    replica.signal(signal.SIGKILL)
    rest()
    replica.start_all()


def _crash(town, rest):
    replica = town.replicas[0]
    replica.signal(signal.SIGKILL, [replica.application])
    rest()
    replica.start_application()


def _pause(town, rest):
    replica = town.replicas[0]
    replica.signal(signal.SIGSTOP)
    rest()
    replica.signal(signal.SIGCONT)


def _hang(town, rest):
    _mood(town, rest, signal.SIGSTOP, signal.SIGCONT)


def _slow(town, rest):
    _mood(town, rest, signal.SIGUSR1, signal.SIGWINCH)


def _reset(town, rest):
    _mood(town, rest, signal.SIGUSR2, signal.SIGWINCH)


def _mood(town, rest, ill, well):
    replica = town.replicas[0]
    replica.signal(ill, [replica.application])
    rest()
    replica.signal(well, [replica.application])


def _half_open(town, rest):
    _packets(town, rest, f"    ct mark {CALM_MARK} drop\n    ct mark set {CALM_MARK + 1}")


def _black_hole(town, rest):
    _packets(town, rest, "    drop")


def _loss(town, rest):
    _packets(town, rest, f"    numgen random mod 100 < {_LOSS_PERCENT} drop")


def _packets(town, rest, rules):
    host = town.replicas[0].host
    host.rules(rules)
    rest()
    host.rules(CALM)


def _dns(town, rest):
    town.nameserver.signal(signal.SIGKILL)
    rest()
    town.own(town.nameserver.again()).first_line()


def _flapping(town, rest):
    replica = town.replicas[0]
    while True:
        replica.signal(signal.SIGKILL, [replica.application])
        on = rest(_FLAP_SECONDS)
        replica.start_application()
        if not on or not rest(_FLAP_SECONDS):
            return


ALL = [
    Fault("none", "nothing happens: what the mesh itself costs", _none),
    Fault("kill", "a replica is killed, with its sidecar (SIGKILL), and started again", _kill),
    Fault("crash", "its application alone is killed; the sidecar stays", _crash),
    Fault("pause", "a replica is stopped, with its sidecar (SIGSTOP), and goes on", _pause),
    Fault("hang", "its application alone is stopped; the sidecar stays", _hang),
    Fault("slow", "it answers after 1 s", _slow),
    Fault("reset", "it accepts, and resets", _reset),
    Fault("half-open", "all its connections are dead without a word (nftables); new ones work", _half_open),
    Fault("black-hole", "all packets from and to it are dropped (nftables)", _black_hole),
    Fault("loss", f"{_LOSS_PERCENT} % of its packets are dropped, each way (nftables)", _loss),
    Fault("dns", "the name server is killed, and started again", _dns),
    Fault("flapping", f"its application is down {_FLAP_SECONDS} s, up {_FLAP_SECONDS} s, and so on", _flapping),
]
