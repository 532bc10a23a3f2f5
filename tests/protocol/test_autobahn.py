"""Autobahn's cases 1 to 7, 9 and 10: no failures, no non-strict results, no bad closes."""

import kosoku
import pytest

from fastws.testing import running

from ..lib import autobahn


@pytest.fixture
async def url():
    async with running(autobahn.echo_server()) as url:
        yield url


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


@pytest.mark.timeout(600)
async def test_autobahns_own_suite_finds_nothing(url):
    python2 = autobahn.find_python2()
    if python2 is None:
        pytest.skip("Autobahn's own suite needs a python2.7: name one in FASTWS_PYTHON2")
    results = await autobahn.run(autobahn.install(python2), url, autobahn.BASIC)
    assert len(results) == 301
    assert autobahn.bad(results) == {}
