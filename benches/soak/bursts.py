"""Now and then as much load as there is: volume, which the sessions do not have."""

import random
import threading

from lab.load import h2load, wrk
from tally import SessionOver
from traffic import WEB

_PAUSE_SECONDS = (5.0, 15.0)


class Bursts:
    """A thread that starts load generators, one after the other, until `stop`."""

    def __init__(self, doors, tally):
        self._doors, self._tally = doors, tally
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bursts", daemon=True)
        self._thread.start()

    def stop(self):
        """Lets the last one end."""
        self._ending.set()
        self._thread.join()

    def _run(self):
        while not self._ending.wait(random.uniform(*_PAUSE_SECONDS)):
            door = random.choice(self._doors)
            kind, load = random.choice((
                ("HTTP/1.1, burst", lambda: wrk(door.name, door.http, WEB, 1)),
                ("HTTP/2, burst", lambda: h2load(door.name, door.http, WEB, 5_000)),
                ("TCP, burst of new connections", lambda: wrk(door.name, door.site, WEB, 1, close=True)),
            ))
            try:
                with self._tally.request(kind, f"burst at {door.name}"):
                    requests = load().requests
            except SessionOver:
                continue
            self._tally.add(kind, requests - 1)
