"""Now and then as much load as there is: volume, which the sessions do not have."""

import itertools
import threading

from lab.load import h2load, wrk
from tally import SessionOver
from traffic import WEB

BURSTS = "bursts"
_DEADLINE = 60
_PAUSE_SECONDS = 4.0
_KINDS = {
    "HTTP/1.1, burst": lambda door: wrk(door.name, door.http, WEB, 1),
    "HTTP/2, burst": lambda door: h2load(door.name, door.http, WEB, 5_000),
    "TCP, burst of new connections": lambda door: wrk(door.name, door.site, WEB, 1, close=True),
}


class Bursts:
    """A thread that starts load generators, one after the other, until `stop`."""

    def __init__(self, doors, tally):
        self._doors, self._tally = doors, tally
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=BURSTS, daemon=True)
        self._thread.start()

    def stop(self):
        """Lets the last one end; returns the names of threads that did not."""
        self._ending.set()
        self._thread.join(_DEADLINE)
        return [self._thread.name] if self._thread.is_alive() else []

    def _run(self):
        """All kinds at all doors by turns: each minute of a long run sees the same."""
        for kind, door in itertools.cycle(itertools.product(_KINDS, self._doors)):
            if self._ending.wait(_PAUSE_SECONDS):
                return
            try:
                with self._tally.request(kind, f"burst at {door.name}"):
                    requests = _KINDS[kind](door).requests
            except SessionOver:
                continue
            self._tally.add(kind, requests - 1)
