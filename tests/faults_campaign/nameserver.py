#!/usr/bin/env python3
"""A name server that has one answer to each question about IPv4 addresses. Run as `nameserver.py ADDRESS ADDRESS...`.

Listens on port 53, UDP, of all addresses; prints a line when it does.
"""

import socket
import struct
import sys

_HEAD = struct.Struct(">6H")
_TYPE_A, _CLASS_IN, _TTL_SECONDS = 1, 1, 1
_ANSWER_FLAGS = 0x8580
_NAME_OF_THE_QUESTION = 0xC00C


def answer(query, addresses):
    """The answer to one query, or None for what is none."""
    if len(query) < _HEAD.size + 5:
        return None
    number, *_ = _HEAD.unpack_from(query)
    end = query.index(0, _HEAD.size) + 5
    kind, _ = struct.unpack_from(">2H", query, end - 4)
    found = addresses if kind == _TYPE_A else []
    records = (struct.pack(">3HIH4s", _NAME_OF_THE_QUESTION, _TYPE_A, _CLASS_IN, _TTL_SECONDS, 4, socket.inet_aton(address))
               for address in found)
    return _HEAD.pack(number, _ANSWER_FLAGS, 1, len(found), 0, 0) + query[_HEAD.size:end] + b"".join(records)


def main(addresses):
    """Answers until it is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("0.0.0.0", 53))
        print("listening", flush=True)
        while True:
            query, asker = ours.recvfrom(4096)
            said = answer(query, addresses)
            if said:
                ours.sendto(said, asker)


if __name__ == "__main__":
    main(sys.argv[1:])
