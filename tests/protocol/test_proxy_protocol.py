"""The PROXY protocol's header, versions 1 and 2, against a model of its own (haproxy's proxy-protocol.txt)."""

import contextlib
import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastws._core import parse_proxy_header

from ..lib.proxy import BAD, MORE, MOST, NONE, SIGNATURE, addresses, binary, line, model

BEHIND = b"GET / HTTP/1.1\r\n"


IPV4 = addresses("192.0.2.1", "192.0.2.2")
IPV6 = addresses("2001:db8::1", "2001:db8::2")
LONGEST = line("UNKNOWN", "f" * (107 - len(line("UNKNOWN", ""))))
assert len(LONGEST) == 107

WHOLE = [
    (line("TCP4", "192.0.2.1", "192.0.2.2", 4711, 80), ("192.0.2.1", 4711)),
    (line("TCP4", "0.0.0.0", "255.255.255.255", 0, 65535), ("0.0.0.0", 0)),
    (line("TCP6", "2001:db8::1", "::", 65535, 1), ("2001:db8::1", 65535)),
    (line("TCP6", "::ffff:192.0.2.1", "::1", 1, 1), ("::ffff:192.0.2.1", 1)),
    (line("TCP6", *["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] * 2, 65535, 65535), ("ffff:" * 7 + "ffff", 65535)),
    (line("UNKNOWN"), None),
    (line("UNKNOWN", "ffff::1", "", "whatever\t\x00", 1), None),
    (LONGEST, None),
    (binary(IPV4), ("192.0.2.1", 4711)),
    (binary(IPV6, family=2), ("2001:db8::1", 4711)),
    (binary(IPV4 + b"\x03\0\x04\xde\xad\xbe\xef"), ("192.0.2.1", 4711)),
    (binary(IPV4 + bytes(MOST - len(IPV4))), ("192.0.2.1", 4711)),
    (binary(IPV4, kind=2), None),  # datagrams, which this is not
    (binary(IPV4, kind=0), None),
    (binary(bytes(216), family=3), None),
    (binary(family=0, kind=0), None),
    (binary(b"anything", family=0, kind=0), None),
    (binary(command=0, family=0, kind=0), "local"),
    (binary(IPV4, command=0), "local"),
    (binary(command=0, family=15, kind=15), "local"),
]

MALFORMED = [
    line("TCP5", "192.0.2.1", "192.0.2.2", 4711, 80),
    line("tcp4", "192.0.2.1", "192.0.2.2", 4711, 80),
    line("UDP4", "192.0.2.1", "192.0.2.2", 4711, 80),
    line("TCP4"),
    line("TCP4", "192.0.2.1", "192.0.2.2", 4711),
    line("TCP4", "192.0.2.1", "192.0.2.2", 4711, 80, 90),
    line("TCP4", "192.0.2.1", "192.0.2.2", 4711, ""),
    line("TCP4", "192.0.2.1", "192.0.2.2", 4711, "80 "),
    line("TCP4", "192.0.2.1", "192.0.2.2", "", 80),
    line("TCP4", "192.0.2.1", "192.0.2.2", 65536, 80),
    line("TCP4", "192.0.2.1", "192.0.2.2", 99999999999999999999, 80),
    line("TCP4", "192.0.2.1", "192.0.2.2", "080", 80),
    line("TCP4", "192.0.2.1", "192.0.2.2", "+80", 80),
    line("TCP4", "192.0.2.1", "192.0.2.2", "-1", 80),
    line("TCP4", "192.0.2.1", "192.0.2", 80, 80),
    line("TCP4", "192.0.2.256", "192.0.2.2", 80, 80),
    line("TCP4", "192.0.02.1", "192.0.2.2", 80, 80),
    line("TCP4", "192.0.2.1\0", "192.0.2.2", 80, 80),
    line("TCP4", "", "192.0.2.2", 80, 80),
    line("TCP4", "192.0.2.1", "", 80, 80),
    line("TCP4", "::1", "::1", 80, 80),
    line("TCP6", "192.0.2.1", "192.0.2.2", 80, 80),
    line("TCP6", "fe80::1%eth0", "::1", 80, 80),
    line("TCP6", "[::1]", "::1", 80, 80),
    line("TCP4 ", "192.0.2.1", "192.0.2.2", 80, 80),
    line("UNKNOWNS"),
    line(""),
    b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\n\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\r\n",
    b"PROXY UNKNOWN\rx\r\n",
    LONGEST.replace(b"\r", b"f\r"),
    b"PROXY " + b"x" * 200,
    binary(IPV4, version=1),
    binary(IPV4, version=3),
    binary(IPV4, command=2),
    binary(IPV4, family=4),
    binary(IPV4, kind=3),
    binary(IPV4[:-1]),
    binary(IPV6[:-1], family=2),
    binary(bytes(215), family=3),
    binary(IPV4, length=MOST + 1),
    binary(IPV4, length=65535),
]

NOT_PROXY = [
    b"GET / HTTP/1.1\r\n",
    b"PROXY2 / HTTP/1.1",
    b"proxy tcp4",
    b"\r\n\r\nGET",
    b"\x16\x03\x01",
    b"PUT",
    b"\r\n\r\n\0\r\nQUIT\r",
]


@pytest.mark.parametrize(("header", "peer"), WHOLE)
@pytest.mark.parametrize("behind", [b"", BEHIND, b"\r\n"])
def test_a_header_is_read_up_to_its_end(header, peer, behind):
    assert parse_proxy_header(header + behind) == (len(header), peer)


@pytest.mark.parametrize(("header", "peer"), WHOLE)
def test_any_part_of_a_header_wants_more(header, peer):
    for cut in range(len(header)):
        assert parse_proxy_header(header[:cut]) == (MORE, None), cut


@pytest.mark.parametrize("header", MALFORMED)
def test_what_is_malformed_is_so_whatever_follows(header):
    assert parse_proxy_header(header) == (BAD, None)
    assert parse_proxy_header(header + BEHIND) == (BAD, None)
    results = [parse_proxy_header(header[:cut]) for cut in range(len(header))]
    assert set(results) <= {(MORE, None), (BAD, None)}
    assert results == sorted(results, reverse=True)  # once it is bad it stays so


@pytest.mark.parametrize("data", NOT_PROXY)
def test_what_begins_otherwise_is_something_else(data):
    assert parse_proxy_header(data) == (NONE, None)


# -- against the model


PORTS = st.integers(0, 65535)
V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)


@st.composite
def headers(draw):
    """Valid headers, and the peers that they name."""
    version = draw(st.sampled_from([4, 6]))
    source, target = draw(st.tuples(*[V4 if version == 4 else V6] * 2))
    ports = draw(st.tuples(PORTS, PORTS))
    if draw(st.booleans()):
        return line(f"TCP{version}", source, target, *ports), (source, ports[0])
    body = addresses(source, target, ports) + draw(st.binary(max_size=100))
    return binary(body, family=1 if version == 4 else 2), (source, ports[0])


@given(headers(), st.binary(max_size=20))
def test_what_was_written_is_read(header, behind):
    data, (source, port) = header
    length, peer = parse_proxy_header(data + behind)
    assert (length, ipaddress.ip_address(peer[0]), peer[1]) == (len(data), source, port)
    assert model(data + behind)[0] == length


WORDS = b"PROXY, ,TCP4,TCP6,UNKNOWN,192.0.2.1,::1,0,65535,65536,\r,\n,\r\n,x,\0,\x7f,\xff".split(b",")
BEGUN = [b"PROXY TCP4 192.0.2.1 192.0.2.2 ", b"PROXY TCP6 ::1 2001:db8::2 ", b"f" * 90]
CLAUSES = st.sampled_from([*WORDS, *BEGUN])
NUMBERS = st.integers(0, 255).map(lambda n: bytes([n]))
GARBAGE = st.one_of(
    st.lists(CLAUSES, max_size=14).map(b"".join),
    st.lists(CLAUSES, max_size=14).map(lambda parts: b"PROXY " + b" ".join(parts) + b"\r\n"),
    st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=300)).map(
        lambda parts: SIGNATURE + b"".join(parts)
    ),
    st.tuples(
        st.sampled_from(b" !"), st.sampled_from(b"\0\x11\x21\x31\x12\x41"), st.integers(0, 240), st.binary(max_size=240)
    ).map(lambda parts: SIGNATURE + struct.pack("!BBH", *parts[:3]) + parts[3]),
    st.binary(max_size=30),
)


@given(GARBAGE)
@example(b"PROXY " + b"x" * 100 + b"\r")
@example(b"PROXY " + b"x" * 99 + b"\r")
@example(b"PROXY " + b"x" * 101)
@example(b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n")
def test_whatever_comes_the_model_says_the_same(data):
    said, meant = parse_proxy_header(data), model(data)
    with contextlib.suppress(TypeError, ValueError):  # an address may be written in several ways
        said = said[0], (str(ipaddress.ip_address(said[1][0])), said[1][1])
    assert said == meant


@given(GARBAGE)
def test_more_bytes_never_change_what_was_said(data):
    """So it does not matter how they were split."""
    whole = parse_proxy_header(data)
    for cut in range(len(data)):
        part = parse_proxy_header(data[:cut])
        assert part in (whole, (MORE, None)), cut
