"""The parser of NATS' protocol: any chunks, any bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws.backplane.nats.address import parse
from fastws.backplane.nats.names import Names, header, token
from fastws.backplane.nats.wire import NATSProtocolError, Parser, headed, plain
from fastws.errors import ConfigurationError

SUBJECT = b"fastws.channel.=2Fws.cars"
payloads = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"MSG a 1 3\r\nabc\r\n", b"x" * 5000])
messages = st.lists(
    st.tuples(st.sampled_from(["plain", "handled", "headed", "line"]), st.booleans(), payloads), max_size=6
)


class Taken:
    """A parser, and all that it has called."""

    def __init__(self):
        self.calls = []
        self.parser = Parser(
            {b"1": lambda payload: self.calls.append(("plain", payload))},
            {b"2": lambda subject, headers, payload: self.calls.append((subject, headers, payload))},
            lambda line: self.calls.append(("line", line)),
        )


def encode(kind, has_reply, payload):
    """The bytes of a message, and what is called for it."""
    reply = b"_INBOX.a.1 " if has_reply else b""
    if kind == "plain":
        return b"MSG %b 1 %b%d\r\n%b\r\n" % (SUBJECT, reply, len(payload), payload), ("plain", payload)
    if kind == "handled":
        return b"MSG %b 2 %b%d\r\n%b\r\n" % (SUBJECT, reply, len(payload), payload), (SUBJECT, b"", payload)
    if kind == "headed":
        headers = b"NATS/1.0\r\nFw: 1\r\n\r\n"
        sizes = b"%d %d" % (len(headers), len(headers) + len(payload))
        return b"HMSG %b 2 %b%b\r\n%b%b\r\n" % (SUBJECT, reply, sizes, headers, payload), (SUBJECT, headers, payload)
    return b"PING\r\n", ("line", b"PING")


@given(messages, st.data())
def test_however_the_bytes_are_cut_the_messages_are_the_same(several, data):
    both = [encode(*message) for message in several]
    stream, expected = b"".join(raw for raw, _ in both), [call for _, call in both]
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    taken = Taken()
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        taken.parser.feed(stream[start:stop])
    assert taken.calls == expected


def test_every_single_cut():
    both = [encode(kind, True, payload) for kind in ("plain", "headed", "line") for payload in (b"", b"\r\n", b"abc")]
    stream, expected = b"".join(raw for raw, _ in both), [call for _, call in both]
    for cut in range(len(stream) + 1):
        taken = Taken()
        taken.parser.feed(stream[:cut])
        taken.parser.feed(stream[cut:])
        assert taken.calls == expected, cut
    taken = Taken()
    for at in range(len(stream)):
        taken.parser.feed(stream[at : at + 1])
    assert taken.calls == expected


def feed(*chunks):
    """Whether a parser takes these bytes; it raises nothing else than that it does not."""
    taken = Taken()
    try:
        for chunk in chunks:
            taken.parser.feed(chunk)
    except NATSProtocolError:
        return False
    return True


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_taken_or_refused(chunks):
    feed(*chunks)


@given(messages, st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_damaged_messages_are_taken_or_refused(several, at, damage):
    stream = b"".join(encode(*message)[0] for message in several)
    at %= len(stream) + 1
    feed(stream[:at] + damage + stream[at + len(damage) :])


@pytest.mark.parametrize(
    "line",
    [
        *(b"MSG", b"MSG a 1", b"MSG a 1 x", b"MSG a 1 -1", b"MSG a 1 r r 1", b"MSG a 1 99999999", b"MSG a 1 +1"),
        *(b"MSG a 1 9999999999", b"HMSG a 2 9 1", b"HMSG a 2 1", b"HMSG a 2 x 1", b"HMSG a 2 -1 1"),
    ],
)
def test_what_is_no_beginning_of_a_message_is_refused(line):
    assert not feed(line + b"\r\nabcdefgh\r\n")


def test_a_message_longer_than_it_says_is_refused():
    assert not feed(b"MSG a 1 3\r\nabcd\r\n")


def test_a_line_without_end_is_not_kept():
    assert not feed(*[b"x" * 1000] * 100)


def test_a_receiver_that_raises_stops_nobody(caplog):
    calls = []

    def fail(payload):
        calls.append(payload)
        raise RuntimeError("oops")

    Parser({b"1": fail}, {}, calls.append).feed(b"MSG a 1 1\r\nx\r\n" * 2)
    assert calls == [b"x", b"x"]
    assert caplog.text.count("RuntimeError: oops") == 2


def test_what_we_write():
    assert plain("a.b", "", b"\r\n") == b"PUB a.b  2\r\n\r\n\r\n"
    assert headed("a", "r", "Fw: 1\r\n", b"xy") == b"HPUB a r 19 21\r\nNATS/1.0\r\nFw: 1\r\n\r\nxy\r\n"


# -- names


@given(st.text(max_size=300), st.text(max_size=300))
def test_names_are_parts_of_subjects_and_do_not_meet(one, other):
    try:
        tokens = [token(name) for name in (one, other)]
    except UnicodeEncodeError:
        return
    assert all(text and len(text) <= 480 and not set(text) & set(" .*>\t\r\n/\\") for text in tokens)
    assert (tokens[0] == tokens[1]) == (one == other)


def test_a_header_is_found_by_its_whole_name():
    headers = b"NATS/1.0\r\nNats-Last-Sequence: 7\r\nX-Fw: 1\r\nFw: 2\r\n\r\n"
    assert header(headers, b"Fw") == b"2"
    assert header(headers, b"Nats-Sequence") == b""


def test_prefixes_do_not_meet():
    assert Names("a.b").directory != Names("a").directory
    assert "." not in Names("a.b").directory


# -- addresses


@pytest.mark.parametrize(
    ("url", "hosts", "login", "replicas"),
    [
        ("nats://10.0.0.5", [("10.0.0.5", 4222)], {}, 1),
        ("nats://ann:p%40ss@h1:7,h2/", [("h1", 7), ("h2", 4222)], {"user": "ann", "pass": "p@ss"}, 1),
        ("tls://s3cret@[::1]:7?replicas=3", [("::1", 7)], {"auth_token": "s3cret"}, 3),
    ],
)
def test_urls(url, hosts, login, replicas):
    address = parse(url)
    assert (list(address.hosts), address.login, address.replicas) == (hosts, login, replicas)
    assert (address.tls is not None) == url.startswith("tls")
    assert "@" not in address.url


@pytest.mark.parametrize(
    "url",
    [
        *("http://u:secret@h", "nats://", "nats://u:secret@", "nats://h:x", "nats://h:0", "nats://h:70000"),
        *("nats://h,,g", "nats://h/x", "nats://h?replicas=9", "nats://h?x=1", "nats://a b"),
    ],
)
def test_urls_that_are_none(url):
    with pytest.raises(ConfigurationError) as raised:
        parse(url)
    assert "secret" not in str(raised.value)
