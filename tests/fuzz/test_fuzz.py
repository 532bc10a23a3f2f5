"""Replays the corpus of the fuzzers: the engine agrees with an independent implementation."""

from pathlib import Path

import pytest

from . import handshake, parser

CORPUS = Path(__file__).parent / "corpus"


def inputs(name):
    return sorted((CORPUS / name).iterdir(), key=str)


@pytest.fixture(scope="module")
def frames():
    target = parser.Target()
    yield target
    target.site.close()


@pytest.fixture(scope="module")
def heads():
    target = handshake.Target()
    yield target
    target.close()


@pytest.mark.parametrize("path", inputs("parser"), ids=lambda path: path.name)
def test_frames_do_what_the_model_does(frames, path):
    frames.check(path.read_bytes())


@pytest.mark.parametrize("path", inputs("handshake"), ids=lambda path: path.name)
def test_a_head_gets_an_answer_that_it_may_have(heads, path):
    heads.check(path.read_bytes())
