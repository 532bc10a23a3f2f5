"""The PROXY protocol's header as others write it, and a model of what is in it (haproxy's proxy-protocol.txt)."""

import ipaddress
import re
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MORE, NONE, BAD = 0, -1, -2
MOST = 4096  # bytes of version 2 after its first 16


def line(*words):
    return " ".join(["PROXY", *map(str, words)]).encode() + b"\r\n"


def binary(body=b"", *, command=1, family=1, kind=1, version=2, length=None):
    announced = len(body) if length is None else length
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family << 4 | kind, announced) + body


def addresses(source, target, ports=(4711, 80)):
    packed = [ipaddress.ip_address(host).packed for host in (source, target)]
    return b"".join(packed) + struct.pack("!HH", *ports)


V1 = re.compile(rb"PROXY (?:(UNKNOWN)(?: [^\r]*)?|TCP([46]) (\S+) (\S+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n")


def model(data):
    """What `parse_proxy_header` has to say of these bytes, by regular expressions and slices."""
    if b"PROXY ".startswith(data[:6]):
        if len(data) < 6:
            return MORE, None
        end = data.find(b"\r")
        if end < 0 or end + 1 == len(data):
            return (BAD if len(data) > 107 or end == 106 or (end < 0 and len(data) == 107) else MORE), None
        found = V1.match(data)
        if found is None or found.end() > 107:
            return BAD, None
        if found[1]:
            return found.end(), None
        kind = ipaddress.IPv4Address if found[2] == b"4" else ipaddress.IPv6Address
        try:
            source, _ = (kind(found[n].decode("ascii")) for n in (3, 4))
        except ValueError:
            return BAD, None
        ports = int(found[5]), int(found[6])
        if max(ports) > 65535 or b"%" in found[0]:
            return BAD, None
        return found.end(), (str(source), ports[0])
    if not SIGNATURE.startswith(data[:12]):
        return NONE, None
    if len(data) < 13:
        return MORE, None
    version, command = divmod(data[12], 16)
    if version != 2 or command > 1:
        return BAD, None
    if len(data) < 16:
        return MORE, None
    (family, kind), (length,) = divmod(data[13], 16), struct.unpack("!H", data[14:16])
    least = {0: 0, 1: 12, 2: 36, 3: 216}.get(family, 65536) if command else 0
    if length > MOST or length < least or (command and kind > 2):
        return BAD, None
    if len(data) < 16 + length:
        return MORE, None
    if not command:
        return 16 + length, "local"
    if kind != 1 or family not in (1, 2):
        return 16 + length, None
    size = 4 if family == 1 else 16
    (port,) = struct.unpack("!H", data[16 + 2 * size : 18 + 2 * size])
    return 16 + length, (str(ipaddress.ip_address(data[16 : 16 + size])), port)
