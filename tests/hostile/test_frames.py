"""Hostile frames: they get the answer in the corpus, and nobody else is affected."""

import logging
import random

import pytest

from ..lib.raw import BINARY, CONTINUATION, PING, PONG, TEXT, close_frame, frame, request
from . import FORGED, MAX_MESSAGE_SIZE
from .frames import CUT_SHORT, FRAMES, NO_TEXTS, NOT_UTF8, says
from .strangers import splits, stranger


@pytest.mark.parametrize("name", FRAMES)
async def test_hostile_frames_have_their_answer_however_they_come(site, name):
    data, answer = FRAMES[name]
    for pieces in splits(data):
        async with stranger(site, "/ws/cars") as raw:
            await raw.send(b"", pieces=pieces)
            assert await raw.eof() == answer
    async with stranger(site) as raw:  # in the handshake's packet, after valid frames and before others
        await raw.send(request("/ws/cars") + frame(TEXT, b"before") + frame(PING, b"p") + data + frame(TEXT, b"after"))
        assert (await raw.response()).status == 101
        assert await raw.eof() == says(TEXT, b"before") + says(PONG, b"p") + answer


@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_peer_that_sends_no_more_still_gets_its_answer(site, name):
    data, answer = CUT_SHORT[name]
    for pieces in splits(data):
        async with stranger(site, "/ws/cars") as raw:
            await raw.send(b"", pieces=pieces)
            raw.half_close()
            assert await raw.eof() == answer


@pytest.mark.parametrize("name", NO_TEXTS)
async def test_text_that_is_no_utf_8_is_1007_wherever_it_stands(site, name):
    bad, _ = NO_TEXTS[name]
    texts = [b"x" * before + bad + b"x" * behind for before in range(18) for behind in (0, 1, 9)]
    for text in [*texts, "é🚗".encode() + bad, b"x" * 500 + bad]:
        async with stranger(site, "/ws/cars") as raw:
            await raw.send(frame(TEXT, text))
            assert await raw.eof() == NOT_UTF8


@pytest.mark.parametrize("name", NO_TEXTS)
async def test_text_that_is_no_utf_8_is_1007_however_it_is_split(site, name):
    bad, shows_early = NO_TEXTS[name]
    text = b"ok " + bad
    frames = [
        frame(TEXT, text),
        b"".join([frame(TEXT, fin=False), *(frame(0, bytes([b]), fin=False) for b in text), frame(0)]),
    ]
    for cut in range(len(text) + 1):
        frames.append(frame(TEXT, text[:cut], fin=False) + frame(PONG) + frame(CONTINUATION, text[cut:]))
    if shows_early:
        frames += [frame(TEXT, text, fin=False), frame(TEXT, text, announced=MAX_MESSAGE_SIZE)]
    for data in frames:
        for pieces in splits(data):
            async with stranger(site, "/ws/cars") as raw:
                await raw.send(b"", pieces=pieces)
                assert await raw.eof() == NOT_UTF8


async def test_a_close_reason_writes_no_line_of_its_own_into_the_log(site, caplog):
    caplog.set_level(logging.DEBUG, logger="fastws")
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(close_frame(1000, f"bye{FORGED}".encode()))
        await raw.eof()
    messages = [record.getMessage() for record in caplog.records]
    assert any("closed: 1000 'bye" in message for message in messages)
    assert [message for message in messages if not message.isprintable()] == []


async def test_binary_may_be_no_utf_8(site):
    data = b"".join(bad for bad, _ in NO_TEXTS.values())
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(frame(BINARY, data))
        assert (await raw.frame()).payload == data


@pytest.mark.parametrize("seed", range(30))
async def test_a_hundred_bytes_of_anything_harm_nobody(site, seed):
    source = random.Random(seed)
    async with stranger(site, "/ws/cars") as raw:
        await raw.send(source.randbytes(100))
        raw.half_close()
        await raw.eof()
    async with stranger(site) as raw:
        await raw.send(source.randbytes(100) + b"\r\n\r\n")
        raw.half_close()
        await raw.eof()
