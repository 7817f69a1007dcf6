"""Memory and descriptors of processes over time, and whether they are flat."""

import dataclasses
import statistics
import threading

EVERY_SECONDS = 2.0
MEMORY_SHARE, MEMORY_BYTES = 0.05, 2 * 2**20
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

    def quarter(self, values, number):
        """The median of one quarter of the samples, counted from 1."""
        size = len(values) / 4
        return statistics.median(values[int(size * (number - 1)):max(int(size * number), 1)])

    def faults(self):
        """What is not flat, in words."""
        faults = []
        for what, values, share, most, unit in (
                ("memory", self.memory, MEMORY_SHARE, MEMORY_BYTES, " bytes"),
                ("descriptors", self.descriptors, DESCRIPTOR_SHARE, DESCRIPTORS, "")):
            second, last = self.quarter(values, 2), self.quarter(values, 4)
            allowed = second + max(second * share, most)
            if last > allowed:
                faults.append(f"{self.name}: {what} grew from {second:,.0f} (median of the second quarter) to "
                              f"{last:,.0f}{unit} (of the last); {allowed:,.0f} would be flat")
        if self.after is not None and self.after > self.before + LEFT_DESCRIPTORS:
            faults.append(f"{self.name}: {self.after} descriptors after all traffic has ended, {self.before} before it")
        return faults


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

    def wait_until_quiet(self, seconds):
        """Waits until descriptors are what they were before the traffic, and notes what they are then."""
        for _ in range(int(seconds)):
            for name, process in self._processes.items():
                self.watched[name].after = process.descriptors()
            if all(one.after <= one.before for one in self.watched.values()):
                return
            threading.Event().wait(1)
