"""Connections that are older than rules: `earlier.py POD OTHER IP_OF_POD IP_OF_OTHER`, two files that are network namespaces.

Opens connections between the two, for two users, in both directions, then prints that it is ready and waits for SIGUSR1.
After that one end of each speaks, and then the other. Prints as JSON which connections no longer carry that. Needs root.
"""

import ctypes
import itertools
import json
import os
import signal
import socket
import sys

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
pod, other = (os.open(path, os.O_RDONLY) for path in sys.argv[1:3])
addresses = {pod: sys.argv[3], other: sys.argv[4]}
ports = itertools.count(6000)


def new_socket(namespace, user):
    """The namespace and the user of a socket are those of its maker."""
    assert libc.setns(namespace, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    os.seteuid(user)
    made = socket.socket(socket.AF_INET6 if ":" in addresses[namespace] else socket.AF_INET)
    os.seteuid(0)
    made.settimeout(2)
    return made


def connection(caller, called, user):
    listener = new_socket(called, user if called == pod else 0)
    address = addresses[called], next(ports)
    listener.bind(address)
    listener.listen()
    client = new_socket(caller, user if caller == pod else 0)
    client.connect(address)
    ends = {caller: client, called: listener.accept()[0]}
    ends[called].settimeout(2)
    return ends


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
users = {"application": 1000, "sidecar": 1337}
ways = {"out": (pod, other), "in": (other, pod)}
turns = {"we speak first": (pod, other), "they speak first": (other, pod)}
made = []
for user, way, turn in itertools.product(users, ways, turns):
    made.append((f"{user}, {way}, {turn}", connection(*ways[way], users[user]), turns[turn]))
print(json.dumps({"event": "ready", "connections": len(made)}), flush=True)
signal.sigwait([signal.SIGUSR1])
broken = {}
for name, ends, turn in made:
    try:
        for speaker, listener in (turn, turn[::-1]):
            ends[speaker].sendall(b"still here")
            assert ends[listener].recv(64) == b"still here"
    except OSError as error:
        broken[name] = str(error)
print(json.dumps({"event": "done", "broken": broken}), flush=True)
