"""A sidecar under callgrind: counting on and off, and what a dump says.

The instructions are those of the process itself; what the kernel does for it is not seen.
"""

import collections
import dataclasses
import fnmatch
import re
import subprocess

from lab.process import Failure
from lab.tools import find

_RUST_ALLOCATOR = ("mi_malloc_aligned", "mi_zalloc_aligned", "mi_realloc_aligned")
_C_ALLOCATOR = ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc")
"""What the cryptography's C uses."""
ALLOCATORS = frozenset(_RUST_ALLOCATOR + _C_ALLOCATOR)
_COPIES = ("__memcpy_", "__memmove_")
# callgrind counts each byte of `rep stosb` as an instruction; glibc's other ways are counted as what they are.
_TUNABLES = "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824"
_DEADLINE = 60
_NAME = re.compile(r"(c?fn)=\((\d+)\)(?: (.*))?")
_COST = re.compile(r"(?:[+-]?\d+|\*) (\d+)")
# Containers, strings and buffers do what others ask of them: callgrind keeps who that was, and they are not blamed.
_PLUMBING = ("alloc::*", "<alloc::*", "core::fmt*", "<core::fmt*", "* as core::fmt::*", "bytes::*", "<bytes::*",
             "http::header::map::*", "<http::header::map::*")
_CALLERS = 6


@dataclasses.dataclass
class Dump:
    """What was counted between two commands."""

    instructions: int = 0
    functions: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Instructions of each function itself, without those that it calls."""
    allocations: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Calls of each allocating function from outside the allocator."""
    allocating: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """The same calls by who calls."""
    copying: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    """Instructions of `memcpy` by who calls it."""

    def add_call(self, callers, called, calls, cost):
        """Takes in that a function, of which more callers may be known, called another."""
        blamed = next((name for name in callers if not _is_plumbing(name)), callers[-1])
        if called in ALLOCATORS and not _is_allocator(callers[0]):
            self.allocations[called] += calls
            self.allocating[blamed] += calls
        elif called.startswith(_COPIES):
            self.copying[blamed] += cost


class Callgrind:
    """Where the dumps of the sidecars of one arrangement go, and the commands to them."""

    def __init__(self, folder):
        folder.mkdir()
        self._folder = folder
        self._pipes = f"--vgdb-prefix={folder}/vgdb"
        self.command = ["env", f"GLIBC_TUNABLES={_TUNABLES}",
                        find("valgrind"), "--quiet", "--tool=callgrind", "--instr-atstart=no", "--vgdb=yes",
                        self._pipes, f"--callgrind-out-file={folder}/%p",
                        *(f"--separate-callers{_CALLERS}={pattern}" for pattern in _PLUMBING)]
        """What the sidecar's command is put behind. Nothing is counted, and little time lost, until `begin`."""
        self._dumps = collections.Counter()

    def begin(self, process):
        """Counts from here on."""
        self._tell(process, "instrumentation on")

    def zero(self, process):
        """Forgets what was counted."""
        self._tell(process, "zero")

    def dump(self, process):
        """What was counted since the last of these commands."""
        self._tell(process, "dump")
        self._dumps[process.pid] += 1
        path = self._folder / f"{process.pid}.{self._dumps[process.pid]}"
        if not path.is_file():
            raise process.failure(f"callgrind has written no {path}")
        with open(path, encoding="utf-8", errors="replace") as lines:
            return read(lines)

    def _tell(self, process, what):
        command = [find("vgdb"), self._pipes, f"--pid={process.pid}", *what.split()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE, check=False)
        except subprocess.TimeoutExpired as error:
            raise process.failure(f"`{' '.join(command)}` had no answer after {_DEADLINE} s") from error
        if done.returncode != 0:
            raise Failure(f"{process.name}: `{' '.join(command)}` ended with status {done.returncode}: "
                          f"{done.stderr.strip()}")


def read(lines):
    """Reads a dump: https://valgrind.org/docs/manual/cl-format.html, with instructions as its only event."""
    dump, names, function, called, calls = Dump(), {}, [""], [""], 0
    for line in lines:
        if cost := _COST.match(line):
            # The line after `calls=` is what the called function took, which counts as its own elsewhere.
            if calls:
                dump.add_call(function, called[0], calls, int(cost[1]))
                calls = 0
            else:
                dump.functions[function[0]] += int(cost[1])
        elif name := _NAME.match(line):
            kind, number, text = name.groups()
            if text:
                # A function, and where it is plumbing also its callers; or a number, where it calls itself.
                names[number] = [name.partition("@@")[0] for name in text.strip().split("'")]
            if kind == "fn":
                function = names[number]
            else:
                called = names[number]
        elif line.startswith("calls="):
            calls = int(line[len("calls="):].split()[0])
        elif line.startswith("totals:"):
            dump.instructions = int(line.split()[1])
    if sum(dump.functions.values()) != dump.instructions:
        raise Failure(f"a dump of {dump.instructions} instructions has functions of {sum(dump.functions.values())}")
    return dump


def _is_allocator(function):
    return function in ALLOCATORS or function.startswith(("mi_", "_mi_", "_int_"))


def _is_plumbing(function):
    return any(fnmatch.fnmatchcase(function, pattern) for pattern in _PLUMBING)
