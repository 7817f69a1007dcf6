"""Memory and descriptors of processes over time, and whether they are flat."""

import dataclasses
import statistics
import threading

EVERY_SECONDS = 2.0
# Not judged at the beginning, when pools and the allocator's pages still fill: two fifths of a short run.
_WARM_UP_SECONDS, _WARM_UP_SHARE = 120, 0.4
# What the last quarter may have more than the second.
MEMORY_SHARE, MEMORY_BYTES = 0.15, 4 * 2**20
# The fewest of a quarter count: bursts open connections, which stay until they have been idle for some time.
DESCRIPTOR_SHARE, DESCRIPTORS = 0.10, 6
LEFT_DESCRIPTORS = 3


@dataclasses.dataclass
class Watched:
    """One process: its samples, and its descriptors before and after all traffic."""

    name: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)
    descriptors: list[int] = dataclasses.field(default_factory=list)
    before: int = 0
    after: int | None = None

    def faults(self):
        """What is not flat, in words."""
        faults = []
        for what, values, of, share, most in (
                ("memory", self.memory, statistics.median, MEMORY_SHARE, MEMORY_BYTES),
                ("descriptors", self.descriptors, min, DESCRIPTOR_SHARE, DESCRIPTORS)):
            second, last = quarter(values, 2, of), quarter(values, 4, of)
            allowed = second + max(second * share, most)
            if last > allowed:
                faults.append(f"{self.name}: {what}: {last:,.0f} in the last quarter ({of.__name__}) after "
                              f"{second:,.0f} in the second; {allowed:,.0f} would be flat")
        if self.after is not None and self.after > self.before + LEFT_DESCRIPTORS:
            faults.append(f"{self.name}: {self.after} descriptors after all traffic has ended, {self.before} before it")
        return faults


def quarter(values, number, of):
    """What `of` says about one quarter of the samples after the warm-up, counted from 1; 0 where there are none."""
    first = int(min(_WARM_UP_SECONDS / EVERY_SECONDS, len(values) * _WARM_UP_SHARE))
    size = (len(values) - first) / 4
    return of(values[first + int(size * (number - 1)):first + int(size * number)] or [0])


class Watch:
    """Samples processes until `stop`."""

    def __init__(self, processes, tally):
        self._processes, self._tally = processes, tally
        self.watched = {name: Watched(name, before=process.descriptors()) for name, process in processes.items()}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def _run(self):
        while not self._ending.wait(EVERY_SECONDS):
            for name, process in self._processes.items():
                # A process that has ended has no memory, which would hide that it has.
                if process.exited() is None:
                    watched = self.watched[name]
                    watched.seconds.append(self._tally.seconds())
                    watched.memory.append(process.resident_bytes())
                    watched.descriptors.append(process.descriptors())

    def stop(self):
        """No further samples."""
        self._ending.set()
        self._thread.join()

    def wait_until_quiet(self, seconds, quiet):
        """Waits until `quiet` and descriptors are what they were before the traffic; notes what they are then."""
        for _ in range(int(seconds)):
            for name, process in self._processes.items():
                self.watched[name].after = process.descriptors()
            if quiet() and all(one.after <= one.before for one in self.watched.values()):
                return
            threading.Event().wait(1)
