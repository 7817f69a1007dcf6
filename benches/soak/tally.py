"""What the traffic came to: how many requests of each kind, and every one that failed."""

import collections
import contextlib
import dataclasses
import datetime
import http.client
import sys
import threading
import time

from lab.caller import WrongAnswer
from lab.process import Failure

_KEPT_EVENTS = 6


class SessionOver(Exception):
    """A request failed and is noted: its connection is of no more use."""


@dataclasses.dataclass
class Failed:
    """A request that failed."""

    second: float
    """Since the start."""
    at: str
    """As the sidecars' logs have it, in UTC."""
    kind: str
    what: str
    error: str
    meanwhile: list[str]
    """What was changed in the mesh last."""


class Tally:
    """Counts for all threads."""

    def __init__(self):
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._events = collections.deque(maxlen=_KEPT_EVENTS)
        self.requests = collections.Counter()
        self.answers = collections.Counter()
        """By which version gave them."""
        self.changes = collections.Counter()
        self.failed = []

    def seconds(self):
        """Since the start."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def request(self, kind, what):
        """Around one request: counts it, or notes why it failed and ends the session."""
        begun = self.seconds()
        try:
            yield
        except (OSError, EOFError, ValueError, WrongAnswer, http.client.HTTPException, Failure) as error:
            self.fail(kind, f"{what}, begun {self.seconds() - begun:.2f} s before", error)
            raise SessionOver from error
        self.add(kind, 1)

    def add(self, kind, count):
        """Counts requests that succeeded."""
        with self._lock:
            self.requests[kind] += count

    def answered_by(self, version):
        """Counts an answer of a version."""
        with self._lock:
            self.answers[version] += 1

    def fail(self, kind, what, error):
        """Notes a failure."""
        now = datetime.datetime.now(datetime.UTC).strftime("%H:%M:%S.%f")[:-3]
        words = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)
        with self._lock:
            self.failed.append(Failed(self.seconds(), now, kind, what, words, list(self._events)))
        print(f"failed at {now}: {kind}: {what}: {words}", file=sys.stderr, flush=True)

    def change(self, kind, what):
        """Counts and notes that something in the mesh was changed."""
        with self._lock:
            self.changes[kind] += 1
            self._events.append(f"{self.seconds():.2f} s: {what}")
