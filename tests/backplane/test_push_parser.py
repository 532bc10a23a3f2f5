"""The parser of subscriptions takes any bytes, cut anywhere. hiredis is the oracle."""

import contextlib
import itertools

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastws.backplane._push import PushParser, records_of
from fastws.backplane.base import Record
from fastws.logs import Position

CHANNELS = [b"fw:{1}:c:/ws:cars", b"", b"$3\r\nabc"]


def bulk(text):
    return b"$-1\r\n" if text is None else b"$%d\r\n%b\r\n" % (len(text), text)


def array(*items):
    return b"*%d\r\n" % len(items) + b"".join(b":%d\r\n" % it if isinstance(it, int) else bulk(it) for it in items)


class Heard:
    """A parser and what it said, in order."""

    def __init__(self, **options):
        self.said = []
        receivers = {channel: lambda payload, channel=channel: self.hear(channel, payload) for channel in CHANNELS}
        self.parser = PushParser(receivers, self.said.append, lambda *failure: self.said.append(failure), **options)

    def hear(self, channel, payload):
        self.said.append([b"smessage", channel, payload])


def split(data, cuts):
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def oracle(data):
    """What hiredis makes of it; of messages only those that somebody listens to."""
    reader = hiredis.Reader(replyError=str.encode)
    reader.feed(data)
    said = []
    with contextlib.suppress(hiredis.HiredisError):
        while (reply := reader.gets()) is not False:
            if not is_nobodys(reply):
                said.append(reply)
    return said


def is_nobodys(reply):
    return isinstance(reply, list) and len(reply) == 3 and reply[0] == b"smessage" and reply[1] not in CHANNELS


def comparable(reply):
    """hiredis gives lines without their first byte, and makes text of errors."""
    if isinstance(reply, bytes):
        return reply[1:].decode("utf-8", "replace").encode() if reply.startswith(b"-") else reply[1:]
    return reply


items = st.none() | st.binary(max_size=20) | st.integers(-(10**9), 10**9) | st.sampled_from(CHANNELS)
pushes = st.one_of(
    st.builds(lambda channel, payload: array(b"smessage", channel, payload), st.sampled_from(CHANNELS), st.binary()),
    st.builds(lambda payload: array(b"smessage", b"nobody listens", payload), st.binary(max_size=9)),
    st.builds(lambda several: array(*several), st.lists(items, min_size=1, max_size=5)),
    st.sampled_from([b"+PONG\r\n", b"-MOVED 1 a:7\r\n", array(b"pong", b""), array(b"sunsubscribe", None, 0)]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(pushes, max_size=6), st.lists(st.integers(0, 1 << 16), max_size=8))
def test_pushes_are_told_however_they_are_cut(several, cuts):
    data = b"".join(several)
    heard = Heard()
    for part in split(data, cuts):
        heard.parser.feed(part)
    assert [comparable(reply) for reply in heard.said] == oracle(data)
    assert heard.parser.pending == 0


@pytest.mark.parametrize("cut", range(1, 90))
def test_a_cut_at_every_byte(cut):
    data = array(b"smessage", CHANNELS[0], b"ab\r\n") + array(b"pong", b"") + b"+OK\r\n" + array(b"x", -5)
    heard = Heard()
    for part in (data[:cut], data[cut:]):
        heard.parser.feed(part)
    assert heard.said == [[b"smessage", CHANNELS[0], b"ab\r\n"], [b"pong", b""], b"+OK", [b"x", -5]]


pieces = st.sampled_from(
    [b"*", b"$", b":", b"+", b"-", b"\r\n", b"\r", b"1", b"3", b"8", b"9999999999", b"smessage", b"x"]
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(pieces | st.binary(max_size=4) | pushes, max_size=14).map(b"".join),
    st.lists(st.integers(0, 1 << 16), max_size=5),
)
def test_any_bytes_are_survived_and_nothing_is_told_that_was_not_there(data, cuts):
    whole, parts = Heard(), Heard()
    outcomes = []
    for heard, chunks in ((whole, [data]), (parts, split(data, cuts))):
        try:
            for chunk in chunks:
                heard.parser.feed(chunk)
            outcomes.append("fed")
        except ValueError:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]
    assert whole.said == parts.said
    assert [comparable(reply) for reply in whole.said] == oracle(data)[: len(whole.said)]


def test_what_is_kept_of_an_unfinished_push_is_bounded():
    heard = Heard(most_bytes=1000)
    with pytest.raises(ValueError, match="no push of a Redis server"):
        heard.parser.feed(b"*3\r\n$8\r\nsmessage\r\n$1\r\nx\r\n$1001\r\n")
    for endless in (b"+" + b"x" * 100_000, b"*1\r\n$" + b"1" * 100_000, b"*99999\r\n", b"*0\r\n"):
        with pytest.raises(ValueError, match="no push of a Redis server"):
            Heard().parser.feed(endless)


def test_a_large_message_in_small_pieces():
    heard, payload = Heard(), bytes(range(256)) * 40_000
    data = array(b"smessage", CHANNELS[0], payload)
    for start in range(0, len(data), 4096):
        heard.parser.feed(data[start : start + 4096])
    assert heard.said == [[b"smessage", CHANNELS[0], payload]]
    assert heard.parser.pending == 0


def test_a_receiver_that_fails_costs_the_others_nothing():
    said, failures = [], []

    def fail(payload):
        raise KeyError(payload)

    parser = PushParser({b"a": fail, b"b": said.append}, said.append, lambda *failure: failures.append(failure))
    parser.feed(array(b"smessage", b"a", b"1") + array(b"smessage", b"b", b"2"))
    assert said == [b"2"]
    assert [(channel, type(error)) for channel, error in failures] == [(b"a", KeyError)]


def test_receivers_may_come_and_go_but_not_feed():
    said = []
    receivers = {b"a": lambda payload: receivers.update({b"b": said.append}) or receivers.pop(b"a")}
    parser = PushParser(receivers, said.append, said.append)
    parser.feed(array(b"smessage", b"a", b"1") + array(b"smessage", b"b", b"2") + array(b"smessage", b"a", b"3"))
    assert said == [b"2"]
    failures = []
    parser = PushParser({b"a": lambda _: parser.feed(b"")}, said.append, lambda *failure: failures.append(failure))
    parser.feed(array(b"smessage", b"a", b"1"))
    assert isinstance(failures[0][1], RuntimeError)


# -- what scripts publish of logs

keys = st.text(st.characters(), max_size=5)
records = st.lists(st.tuples(keys, st.none() | st.binary(max_size=9)), min_size=1, max_size=4)


def published(offset, before, tag, several):
    data = b"H%d %d %d\n" % (offset, before, tag)
    for key, payload in several:
        key = key.encode("utf-8", "surrogatepass")
        data += b"%d %d\n" % (len(key), -1 if payload is None else len(payload)) + key + (payload or b"")
    return data


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**15), st.integers(0, 10**17), st.integers(0, 10**17), records, st.booleans())
def test_records_of_a_log(offset, before, tag, several, has_keys):
    if not has_keys:
        several = [("", payload) for _, payload in several]
    previous, found = records_of(published(offset, before, tag, several), has_keys, Position, Record)
    assert (type(previous), previous) == (Position, (offset, before))
    assert found == [
        Record(Position(offset + number, tag), key if has_keys else None, payload)
        for number, (key, payload) in enumerate(several, 1)
    ]
    assert {(type(record), type(record.position)) for record in found} == {(Record, Position)}


@settings(max_examples=1500, deadline=None)
@given(st.binary(max_size=40) | st.builds(published, *[st.integers(-1, 99)] * 3, records), st.integers(0, 60))
def test_any_bytes_are_records_of_a_log_or_refused(data, cut):
    for some in (data, data[:cut], b"H" + data):
        try:
            _, found = records_of(some, True, Position, Record)
        except ValueError:
            continue
        assert sum(len(record.payload or b"") for record in found) <= len(some)
