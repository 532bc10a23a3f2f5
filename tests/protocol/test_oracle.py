"""The engine against wsproto, an independent implementation, with frames and splits from hypothesis."""

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Ping,
    TextMessage,
)

from fastws import Listener

from ..lib.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Raw, close_frame, frame
from ..lib.support import Echo

many = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

masks = st.binary(min_size=4, max_size=4)
# Mostly valid text, and sometimes any bytes.
payloads = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.text(max_size=3).map(lambda text: text.encode() * 60),
    st.binary(max_size=200),
    st.just(b"x" * 65536),
)
closes = st.one_of(
    st.just(b""),
    st.builds(
        lambda code, reason: struct.pack("!H", code) + reason.encode()[:123],
        st.one_of(st.sampled_from([1000, 1001, 1005, 1006, 3000, 4000, 5000]), st.integers(0, 65535)),
        st.text(max_size=30),
    ),
    st.binary(max_size=130),
)


@st.composite
def messages(draw):
    """The frames of one message in any number of fragments, with control frames in between."""
    payload = draw(payloads)
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
    ends = [*cuts, len(payload)]
    frames = []
    for number, (start, end) in enumerate(zip([0, *cuts], ends, strict=True)):
        part = frame(
            CONTINUATION if number else opcode,
            payload[start:end],
            fin=number == len(cuts),
            mask=draw(masks),
        )
        frames += [part, draw(st.sampled_from([b"", b"", frame(PING, b"in between"), frame(PONG)]))]
    return b"".join(frames)


controls = st.builds(frame, st.sampled_from([PING, PONG]), st.binary(max_size=125), mask=masks)
endings = st.builds(lambda payload, mask: frame(CLOSE, payload, mask=mask), closes, masks)
# Frames, most of which break a rule.
odd = st.builds(
    frame,
    st.integers(0, 15),
    st.binary(max_size=130),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 1, 2, 4]),
    mask=st.one_of(masks, masks, st.none()),
    length_bits=st.sampled_from([None, None, 16, 64]),
)
conversations = st.builds(
    lambda parts, last: b"".join([*parts, last]),
    st.lists(st.one_of(messages(), messages(), controls, odd), max_size=6),
    st.one_of(endings, st.just(frame(CLOSE, b"\x03\xe8"))),
)


def split(data, cuts):
    """`data` split at those positions."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    starts, ends = [0, *places], [*places, len(data)]
    return [data[start:end] for start, end in zip(starts, ends, strict=True) if start < end]


def echoed_by_wsproto(pieces):
    """What an echo server with wsproto answers: (opcode, payload) of each frame, the close frame last."""
    connection = Connection(ConnectionType.SERVER)
    answers, parts = [], []
    for piece in pieces:
        connection.receive_data(piece)
        for event in connection.events():
            match event:
                case TextMessage() | BytesMessage():
                    parts.append(event.data)
                    if event.message_finished:
                        text = isinstance(event, TextMessage)
                        whole = "".join(parts).encode() if text else b"".join(parts)
                        answers.append((TEXT if text else BINARY, whole))
                        parts.clear()
                case Ping():
                    answers.append((PONG, bytes(event.payload)))
                case CloseConnection():
                    return [*answers, (CLOSE, event.code)]
    raise AssertionError("every conversation ends with a close or a violation")


async def echoed_by_fastws(url, pieces):
    raw = await Raw.open(url)
    try:
        await raw.upgrade("/ws/cars")
        await raw.send(b"", pieces=pieces)
        answers = []
        while not answers or answers[-1][0] != CLOSE:
            got = await raw.frame()
            assert (got.fin, got.rsv, got.masked) == (True, 0, False)
            payload = got.payload
            if got.opcode == CLOSE:
                payload = struct.unpack("!H", payload[:2])[0] if payload else 1005
            answers.append((got.opcode, payload))
        assert await raw.eof() == b""
        return answers
    finally:
        raw.close()


@pytest.fixture
async def site(serve):
    return await serve(Echo())


@many
@given(data=conversations, cuts=st.lists(st.integers(0, 1 << 20), max_size=12))
async def test_any_frames_in_any_split_get_the_answers_of_wsproto(site, data, cuts):
    pieces = split(data, cuts)
    assert await echoed_by_fastws(site.url, pieces) == echoed_by_wsproto(pieces)


@settings(many, max_examples=100)
@given(data=conversations.filter(lambda data: len(data) < 400))
async def test_byte_by_byte_gets_the_answers_of_wsproto(site, data):
    pieces = [data[i : i + 1] for i in range(len(data))]
    assert await echoed_by_fastws(site.url, pieces) == echoed_by_wsproto(pieces)


edges = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 65537, 200_000])
outgoing = st.one_of(
    st.text(max_size=50),
    st.binary(max_size=50),
    edges.map(lambda size: "x" * size),
    edges.map(lambda size: bytes(size)),
)


class Pour(Listener):
    """Sends all `messages` to each connection, and closes it."""

    messages = ()

    def on_open(self, ws):
        for message in self.messages:
            ws.send(message)
        ws.close(4000, "done")


@pytest.fixture
async def pouring(serve):
    pour = Pour()
    return pour, (await serve(pour)).url


@settings(many, max_examples=100)
@given(sent=st.lists(outgoing, max_size=8), cuts=st.lists(st.integers(0, 1 << 20), max_size=8))
async def test_whatever_is_sent_is_read_by_wsproto(pouring, sent, cuts):
    pour, url = pouring
    pour.messages = sent
    raw = await Raw.open(url)
    await raw.upgrade("/ws/cars")
    await raw.send(close_frame(4000))
    data = await raw.eof()
    raw.close()
    client = Connection(ConnectionType.CLIENT)
    received, parts, closed = [], [], None
    for piece in split(data, cuts):
        client.receive_data(piece)
        for event in client.events():
            match event:
                case TextMessage() | BytesMessage():
                    parts.append(event.data)
                    if event.message_finished:
                        text = isinstance(event, TextMessage)
                        received.append("".join(parts) if text else b"".join(parts))
                        parts.clear()
                case CloseConnection():
                    closed = (event.code, event.reason)
    assert received == sent
    assert closed == (4000, "done")
