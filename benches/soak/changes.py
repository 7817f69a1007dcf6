"""What changes in the mesh all along: the weights of a route, and which replicas there are."""

import random
import signal
import threading
import time

from lab.mesh import wait_until_ready
from lab.process import Failure
from town import VERSIONS

_EDIT_SECONDS = (0.5, 3.0)
_LIFE_SECONDS = (3.0, 15.0)
_SLOTS = 2
_END_DEADLINE = 40
_CUT = "outlived the drain deadline"


class Changes:
    """Threads that edit and replace until `stop`."""

    def __init__(self, town, tally):
        self._town, self._tally = town, tally
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._edit, name="edits", daemon=True)]
        self._threads += [threading.Thread(target=self._replace, args=(number,), name=f"replicas {number}", daemon=True)
                          for number in range(_SLOTS)]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Lets the last replicas end; returns the names of threads that did not."""
        self._ending.set()
        for thread in self._threads:
            thread.join(2 * _END_DEADLINE)
        return [thread.name for thread in self._threads if thread.is_alive()]

    def _edit(self):
        while not self._ending.wait(random.uniform(*_EDIT_SECONDS)):
            first = random.randint(1, 9)
            self._town.set_weights(first, 10 - first)
            self._tally.change("edits of weights", f"weights {first} and {10 - first}")

    def _replace(self, number):
        """One replica after the other, each with a name, ports and a certificate of its own."""
        while not self._ending.is_set():
            replica = self._town.start_replica(VERSIONS[number % len(VERSIONS)])
            try:
                self._tally.change("replicas started", f"{replica.name} started")
                wait_until_ready(replica.sidecar)
                self._ending.wait(random.uniform(*_LIFE_SECONDS))
                self._leave(replica, random.choice((_document_first, _both, _sidecar_first)))
            except Failure as error:
                self._tally.fail("replica", replica.name, error)
            finally:
                replica.sidecar.stop()

    def _leave(self, replica, way):
        """Ends it gracefully, in one of the orders in which that happens to workloads."""
        self._tally.change("replicas stopped", f"{replica.name} stops, {way.__name__.strip('_').replace('_', ' ')}")
        way(replica)
        if replica.sidecar.exited() != 0:
            raise replica.sidecar.failure("did not end with status 0")
        if any(_CUT in line for line in replica.sidecar.log()):
            raise replica.sidecar.failure("cut what outlived its drain deadline")


def _document_first(replica):
    replica.remove_document()
    time.sleep(random.uniform(0.2, 2))
    _end(replica)


def _both(replica):
    replica.sidecar.signal(signal.SIGTERM)
    replica.remove_document()
    _wait(replica)


def _sidecar_first(replica):
    """As when a machine is shut down: who keeps the documents learns it last."""
    _end(replica)
    time.sleep(random.uniform(0, 1))
    replica.remove_document()


def _end(replica):
    replica.sidecar.signal(signal.SIGTERM)
    _wait(replica)


def _wait(replica):
    end = time.monotonic() + _END_DEADLINE
    while replica.sidecar.exited() is None:
        if time.monotonic() > end:
            raise replica.sidecar.failure(f"still there {_END_DEADLINE} s after SIGTERM")
        time.sleep(0.05)
