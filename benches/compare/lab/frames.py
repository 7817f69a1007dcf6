"""What both ends of HTTP/2 need of it (RFC 9113, and RFC 7541 for the integers of HPACK)."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INITIAL_WINDOW_SIZE, FIRST_WINDOW, LARGEST_WINDOW = 4, 65_535, 2**31 - 1
LARGEST_FRAME = 16_384
HEAD_BYTES = 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATUS_200 = 0x88


def frame(kind, flags, stream, payload=b""):
    """A frame, ready to be sent."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + bytes(payload)


def read_head(head):
    """Length of the payload, kind, flags and stream, of a frame's first nine bytes."""
    return int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:9]) & LARGEST_WINDOW


def without_padding(payload, flags):
    """The payload of DATA or HEADERS by itself."""
    return payload[1:len(payload) - payload[0]] if flags & PADDED else payload


def literal(name, value):
    """A header field that no table is needed for."""
    return b"\x00" + b"".join(integer(0, 7, len(part)) + part for part in (name.encode(), value.encode()))


def integer(first, bits, value):
    """An integer with a prefix of so many bits (RFC 7541, 5.1)."""
    most = 2**bits - 1
    if value < most:
        return bytes([first | value])
    parts, value = [first | most], value - most
    while value >= 128:
        parts.append(value % 128 | 128)
        value //= 128
    return bytes([*parts, value])
