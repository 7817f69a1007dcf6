"""What a packet capture shows: `pcap.py FILE TEXT`, a file of `tcpdump -w` on Ethernet. Prints JSON:

`tls13` ports that carried nothing but TLS 1.3, with their number of connections; `plain` the same for ports that carried
anything else; `found` the ports whose bytes contain TEXT; `other` protocols over IP that are neither TCP nor
housekeeping; `gaps` bytes that the capture has missed.
"""

import collections
import json
import struct
import sys

TCP = 6
# What hosts and switches say to each other of themselves: ICMP, IGMP, and IPv6 with a hop-by-hop option (MLD).
HOUSEKEEPING = (0, 1, 2, 58)
SYN = 2
CHANGE_CIPHER_SPEC, HANDSHAKE, APPLICATION_DATA = 20, 22, 23
SUPPORTED_VERSIONS, TLS13 = 43, 0x0304


def packets(data):
    """IP packets: (protocol, source, destination, payload)."""
    order = {0xA1B2C3D4: "<", 0xD4C3B2A1: ">"}[struct.unpack_from("<I", data)[0]]
    assert struct.unpack_from(order + "I", data, 20)[0] == 1, "not Ethernet"
    at = 24
    while at < len(data):
        length, original = struct.unpack_from(order + "II", data, at + 8)
        assert length == original, "a packet was cut"
        frame = data[at + 16 : at + 16 + length]
        at += 16 + length
        kind, packet = frame[12:14], frame[14:]
        if kind == b"\x08\x00":
            start, end = (packet[0] & 15) * 4, struct.unpack_from("!H", packet, 2)[0]
            yield packet[9], packet[12:16], packet[16:20], packet[start:end]
        elif kind == b"\x86\xdd":
            end = 40 + struct.unpack_from("!H", packet, 4)[0]
            yield packet[6], packet[8:24], packet[24:40], packet[40:end]


def streams(data):
    """The bytes of each direction of each TCP connection, protocols that are not TCP, and missing bytes."""
    parts, other, gaps = collections.defaultdict(dict), set(), 0
    incarnation = collections.Counter()
    for protocol, source, destination, segment in packets(data):
        if protocol != TCP:
            if protocol not in HOUSEKEEPING:
                other.add(protocol)
            continue
        source_port, destination_port, sequence = struct.unpack_from("!HHI", segment)
        ends = (source, source_port, destination, destination_port)
        if segment[13] & SYN:
            if (*ends, incarnation[ends]) not in parts or sequence not in parts[(*ends, incarnation[ends])]:
                incarnation[ends] += 1
            parts[(*ends, incarnation[ends])].setdefault(sequence, b"")
            continue
        payload = segment[(segment[12] >> 4) * 4 :]
        if payload:
            known = parts[(*ends, incarnation[ends])]
            known[sequence] = max(known.get(sequence, b""), payload, key=len)
    whole = {}
    for ends, known in parts.items():
        first = next(iter(known))
        stream = bytearray()
        for sequence in sorted(known, key=lambda number: (number - first) % 2**32):
            offset = (sequence - first - 1) % 2**32
            if not known[sequence]:
                continue
            if offset > len(stream):
                gaps += offset - len(stream)
                stream.extend(bytes(offset - len(stream)))
            stream.extend(known[sequence][max(0, len(stream) - offset) :])
        whole[ends] = bytes(stream)
    return whole, other, gaps


def records(stream):
    """TLS records, or None if that is not what it is; the last may be incomplete."""
    found, at = [], 0
    while at + 5 <= len(stream):
        kind, version, length = struct.unpack_from("!BHH", stream, at)
        if not 20 <= kind <= 23 or version not in (0x0301, 0x0303) or length > 16640:
            return None
        found.append((kind, stream[at + 5 : at + 5 + length]))
        at += 5 + length
    return found


def is_tls13(client, server):
    """A ClientHello, a ServerHello that chooses TLS 1.3 (RFC 8446), and nothing after them that is not encrypted."""
    sides = [records(client), records(server)]
    for side, hello in zip(sides, (1, 2)):
        if not side or side[0][0] != HANDSHAKE or side[0][1][0] != hello:
            return False
        if any(kind not in (CHANGE_CIPHER_SPEC, APPLICATION_DATA) for kind, _ in side[1:]):
            return False
    chosen = sides[1][0][1]
    at = 4 + 2 + 32
    at += 1 + chosen[at] + 2 + 1 + 2
    while at + 4 <= len(chosen):
        kind, length = struct.unpack_from("!HH", chosen, at)
        if kind == SUPPORTED_VERSIONS:
            return struct.unpack_from("!H", chosen, at + 4)[0] == TLS13
        at += 4 + length
    return False


whole, other, gaps = streams(open(sys.argv[1], "rb").read())
text = sys.argv[2].encode()
tls13, plain, found = collections.Counter(), collections.Counter(), collections.Counter()
for (source, source_port, destination, destination_port, number), client in whole.items():
    if source_port < destination_port:
        continue  # The answers, looked at with the questions: servers have the lower port.
    server = whole.get((destination, destination_port, source, source_port, number), b"")
    if text in client:
        found[f"to {destination_port}"] += 1
    if text in server:
        found[f"from {destination_port}"] += 1
    if client or server:
        (tls13 if is_tls13(client, server) else plain)[destination_port] += 1
print(json.dumps({"tls13": tls13, "plain": plain, "found": found, "other": sorted(other), "gaps": gaps}))
