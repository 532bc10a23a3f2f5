"""Autobahn's cases, those of compression included: no failures, no non-strict results, no bad closes."""

import sys
from io import BytesIO
from pathlib import Path

import kosoku
import pytest

from fastws.testing import running

from ..lib import autobahn


@pytest.fixture
async def url():
    async with running(autobahn.echo_server()) as url:
        yield url


@pytest.fixture
async def compressing():
    async with running(autobahn.compressing_echo_server()) as url:
        await kosoku_results(url, ["1.1.1"], 1)  # imports its cases
        cases = sys.modules["case12_x_x"]
        with pytest.MonkeyPatch.context() as patch:
            # They leave their files open.
            patch.setattr(cases, "open", lambda name, mode: BytesIO(Path(name).read_bytes()), raising=False)
            for case in [*cases.Case12_X_X, *cases.Case13_X_X]:
                patch.setattr(case, "onMessage", of_bytes(case.onMessage))
            yield url


def of_bytes(on_message):
    """Where compression was agreed on, kosoku hands a message that came plain to its case as a str of bytes."""

    def on_bytes(case, message, is_binary):
        on_message(case, message.encode("latin-1") if isinstance(message, str) else message, is_binary)

    return on_bytes


async def kosoku_results(url, cases, concurrency):
    try:
        results = await kosoku.run_fuzzingclient(url, cases=cases, concurrency=concurrency)
    except kosoku.FailureError as failure:
        results = failure.results
    return {got.case_id: (got.behavior.value, got.behavior_close.value) for got in results}


@pytest.mark.parametrize(("sections", "count"), [([1, 2, 3, 4, 5], 64), ([6], 145), ([7, 10], 38), ([9], 54)])
async def test_kosoku_finds_nothing(url, sections, count):
    results = await kosoku_results(url, [f"{section}.*" for section in sections], 1)
    assert len(results) == count
    assert autobahn.bad(results) == {}


GROUPS = [*(f"12.{kind}" for kind in range(1, 6)), *(f"13.{offer}" for offer in range(1, 8))]


async def test_kosoku_finds_nothing_in_some_compressed_messages(compressing):
    """Of each group one with small messages, and one with fragments."""
    cases = [f"{group}.{size}" for group in GROUPS for size in (2, 11)]
    results = await kosoku_results(compressing, cases, 1)
    assert sorted(results) == sorted(cases)
    assert autobahn.bad(results) == {}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", GROUPS)
async def test_kosoku_finds_nothing_in_any_compressed_messages(compressing, group):
    results = await kosoku_results(compressing, [f"{group}.*"], 1)
    assert len(results) == 18
    assert autobahn.bad(results) == {}


@pytest.mark.timeout(600)
async def test_autobahns_own_suite_finds_nothing(url):
    """Those of compression take it much longer: python -m tests.lib.autobahn 12.* 13.*"""
    python2 = autobahn.find_python2()
    if python2 is None:
        pytest.skip("Autobahn's own suite needs a python2.7: name one in FASTWS_PYTHON2")
    results = await autobahn.run(autobahn.install(python2), url, autobahn.BASIC)
    assert len(results) == 301
    assert autobahn.bad(results) == {}
