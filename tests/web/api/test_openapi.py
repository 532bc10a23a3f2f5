"""The description of the API: valid, true to what is served, and fuzzed by a tool that knows nothing else of it."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate

from fastws.web.openapi import document
from fastws.web.operations import OPERATIONS
from tests.web.api.site import BEARER, KEY, curl

CONFIG = Path(__file__).with_name("schemathesis.toml")


async def test_the_description_is_valid_and_needs_no_key(site):
    status, fields, said = await curl(f"{site.url}/openapi.json")
    assert (status, fields["content-type"]) == (200, "application/json")
    validate(said)
    assert said["components"]["schemas"]["Broadcast"]["properties"]["endpoint"]["enum"] == [
        "/raw/{channel}",
        "/ws/{channel}",
    ]


def test_every_operation_is_described_once_and_every_shape_that_is_named_is_there():
    described = document("/publish")
    validate(described)
    routes = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert routes == {(o.method.lower(), "/publish" + o.path) for o in OPERATIONS}


async def test_schemathesis_finds_no_fault(site, monkeypatch, tmp_path):
    monkeypatch.setattr("fastws.access.keys.MOST_FAILURES", 1 << 30)
    await site.join("/raw/cars?user=ann")
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", f"{site.url}/openapi.json"]
    command += ["--header", f"X-API-Key: {KEY}", "--max-examples", "8", "--generation-deterministic", "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(250):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    assert b"Tested: 16" in said


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ("channel", "channels", "message", "text", "base64", "users", "to", "exclude", "key", "code", "reason")


@pytest.mark.parametrize("name", ["broadcast", "send", "subscribe", "unsubscribe", "close"])
async def test_no_body_fails_the_server(site, call, name):
    """Bodies of no schema at all, as well as those with the right fields and wrong values."""
    bodies = []

    @settings(max_examples=60, derandomize=True, database=None)
    @given(JSON | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5))
    def collect(body):
        bodies.append(body)

    await asyncio.get_running_loop().run_in_executor(None, collect)
    for body in bodies:
        headers = {**BEARER, "Content-Type": "application/json"}
        status, said = await call("POST", f"/{name}", data=json.dumps(body), headers=headers)
        assert status in (200, 400), (status, said, body)
        status, _ = await call("POST", "/batch", {"commands": [{name: body}]})
        assert status in (200, 400), (status, body)


async def test_no_bytes_fail_the_server(site, call):
    bodies = []

    @settings(max_examples=150, derandomize=True, database=None)
    @given(
        st.binary(max_size=40) | st.binary(max_size=20).map(lambda part: b'{"channel": "a", "message": ' + part + b"}")
    )
    def collect(body):
        bodies.append(body)

    await asyncio.get_running_loop().run_in_executor(None, collect)
    for body in bodies:
        for path in ("/broadcast", "/channels/cars"):
            headers = {**BEARER, "Content-Type": "application/json"}
            status, _ = await call("POST", path, data=body, headers=headers)
            assert status in (200, 400), (status, path, body)
