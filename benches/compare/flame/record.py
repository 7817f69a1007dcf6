"""Recording the stacks of processes with `perf` while something happens.

The release binary has no frame pointers but unwind tables, so perf copies the stack with each sample and unwinds later.
64 KiB is the most that it copies; polling a connection's future can take more, see `stacks.complete`.
"""

import contextlib
import os
import select
import signal
import subprocess

from lab.process import Failure, Process
from lab.tools import find

HERTZ = 499
_STACK_BYTES = 65_528
_START_SECONDS = 20


@contextlib.contextmanager
def recording(data, processes):
    """Samples the processes (a list of `Process`) into the file `data` until the end of the block."""
    pids = ",".join(str(pid) for process in processes for pid in process.all_pids())
    control, answers = data.with_suffix(".control"), data.with_suffix(".answers")
    for pipe in (control, answers):
        os.mkfifo(pipe)
    perf = Process("perf", [
        find("perf"), "record", "--quiet", "--event", "cpu-clock", "--freq", HERTZ, "--call-graph",
        f"dwarf,{_STACK_BYTES}", "--mmap-pages", "16M", "--output", data, "--delay=-1",
        f"--control=fifo:{control},{answers}", "--pid", pids], last_signal=signal.SIGINT, wait=60)
    try:
        _enable(perf, control, answers)
        yield
    finally:
        # An interrupt is how perf is asked to write what it has.
        perf.stop()
    if not data.is_file():
        raise perf.failure("wrote nothing")


def _enable(perf, control, answers):
    """Starts sampling, and returns when perf says that it does: a load must not begin before."""
    # Opened to read and write, because opening one end of a pipe waits for the other.
    with open(control, "r+b", buffering=0) as to_perf, open(answers, "r+b", buffering=0) as from_perf:
        to_perf.write(b"enable\n")
        ready, _, _ = select.select([from_perf], [], [], _START_SECONDS)
        if not ready:
            raise perf.failure(f"takes no samples after {_START_SECONDS} s")


def script(data):
    """What perf recorded as text: a head with program, process and thread, then the frames, the innermost first."""
    # Without line tables, looking for inlined functions finds nothing and takes minutes.
    command = [find("perf"), "script", "--no-inline", "--fields", "comm,pid,tid,ip,sym", "--input", str(data)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise Failure(f"`{' '.join(command)}` ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
