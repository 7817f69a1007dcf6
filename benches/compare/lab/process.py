"""Processes that say what went wrong with them, and that end with the command, however it ends."""

import collections
import ctypes
import os
import shlex
import signal
import subprocess
import threading
import time

TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """Something that ends one contender's part of a scenario: says who, what and why."""


def ending_with_us(last_signal=signal.SIGKILL):
    """What a child has to do before it becomes the program, so that the kernel ends it when we die."""
    us = os.getpid()

    def in_child():
        _libc.prctl(_PR_SET_PDEATHSIG, int(last_signal))
        if os.getppid() != us:
            os._exit(1)

    return in_child


class Process:
    """A program in a session of its own, so that its children can be counted and ended with it.

    When we die without a word (SIGKILL), the kernel sends it `last_signal`. That has to be SIGTERM for programs that
    end their own children, as nginx does with its workers.
    """

    def __init__(self, name, command, last_signal=signal.SIGKILL, wait=10.0, environment=None, kept_lines=30):
        self.name = name
        self.command = [str(word) for word in command]
        self._last_signal = last_signal
        self._wait = wait
        self._environment = environment
        self._stopped = False
        self._kept_lines = kept_lines
        self._log = collections.deque(maxlen=kept_lines)
        self._lines = collections.deque(maxlen=30)
        self._news = threading.Condition()
        try:
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True, preexec_fn=ending_with_us(last_signal), text=True, errors="replace",
                env=environment)
        except OSError as error:
            raise Failure(f"{name}: cannot start `{self.shell()}`: {error}") from error
        self._readers = [
            threading.Thread(target=self._read, args=(self._child.stdout, self._lines), daemon=True),
            threading.Thread(target=self._read, args=(self._child.stderr, None), daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, lines):
        for line in pipe:
            with self._news:
                self._log.append(line.rstrip())
                if lines is not None:
                    lines.append(line)
                self._news.notify_all()

    @property
    def pid(self):
        """Of the program itself, not of its children."""
        return self._child.pid

    def shell(self):
        """The command as a shell takes it."""
        return shlex.join(self.command)

    def exited(self):
        """Its status, or None while it runs."""
        return self._child.poll()

    def wait(self, deadline):
        """Its status once it has ended, or None when it has not by the deadline."""
        try:
            return self._child.wait(deadline)
        except subprocess.TimeoutExpired:
            return None

    def first_line(self, deadline=20.0):
        """The first line that it prints on standard output."""
        end = time.monotonic() + deadline
        with self._news:
            while not self._lines and self.exited() is None and time.monotonic() < end:
                self._news.wait(0.05)
            if self._lines:
                return self._lines[0]
        raise self.failure(f"printed no line on standard output, which was waited for {deadline:g} s or until it ended")

    def failure(self, what):
        """An error that names the program, its command and its last words."""
        for reader in self._readers if self.exited() is not None else []:
            reader.join(1)
        status = "still runs" if self.exited() is None else f"ended with status {self.exited()}"
        log = "\n".join(f"    | {line}" for line in list(self._log)[-15:]) or "    | (it said nothing)"
        return Failure(f"{self.name}: {what} ({status})\n    $ {self.shell()}\n{log}")

    def again(self):
        """Ends it and starts the same command; returns the new process."""
        self.stop()
        return Process(self.name, self.command, self._last_signal, self._wait, self._environment,
                       self._kept_lines)

    def all_pids(self):
        """It and its children: everything in its session."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = _stat(entry)
                if fields and int(fields[3]) == self.pid:
                    found.append(int(entry))
        return found

    def cpu_seconds(self):
        """User and system time of all threads, of it and its children: `/proc/PID/stat`."""
        fields = [_stat(pid) for pid in self.all_pids()]
        return sum(int(stat[11]) + int(stat[12]) for stat in fields if stat) / TICKS

    def resident_bytes(self):
        """Resident memory of it and its children: `VmRSS`."""
        total = 0
        for pid in self.all_pids():
            try:
                with open(f"/proc/{pid}/status") as status:
                    total += sum(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))
            except OSError:
                continue
        return total

    def descriptors(self):
        """How many file descriptors the program has open, without its children; 0 when it has ended."""
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0

    def signal(self, number):
        """Sends it a signal, unless it has ended."""
        self._child.send_signal(number)

    def log(self):
        """The last lines that it has printed."""
        with self._news:
            return list(self._log)

    def binary_bytes(self):
        """Size of its program's file, without the libraries that it loads."""
        return os.stat(f"/proc/{self.pid}/exe").st_size

    def stop(self):
        """Asks it to end, then ends it and whatever it left behind. May be called again."""
        if self._stopped:
            return
        self._stopped = True
        if self.exited() is None:
            self._child.send_signal(self._last_signal)
            try:
                self._child.wait(self._wait)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
        try:
            os.killpg(self._child.pid, signal.SIGKILL)
        except OSError:
            pass
        for reader in self._readers:
            reader.join(1)
        self._child.stdout.close()
        self._child.stderr.close()


def _stat(pid):
    """The fields of `/proc/PID/stat` after the name: the first is the state, the fourth the session."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None
