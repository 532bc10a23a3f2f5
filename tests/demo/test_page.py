"""The demo's relay, and the page as it is served."""

import asyncio

import pytest

from ..lib.chat import TIMEOUT, fetch

# The relay


async def test_the_relay_passes_everything_on_as_it_is(opened):
    ann, bob, other = await opened("/ws/cars"), await opened("/ws/cars"), await opened("/ws/boats")
    for message in ("not JSON é", b"\x00\xff"):
        await ann.send(message)
        for client in (ann, bob):
            assert await asyncio.wait_for(client.recv(), TIMEOUT) == message
    await other.send("mine")
    assert await asyncio.wait_for(other.recv(), TIMEOUT) == "mine"


# The page


async def test_the_page_is_served_at_the_root(server):
    status, headers, body = await fetch(server, "GET", "/?channel=cars")
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert headers["x-content-type-options"] == "nosniff"
    assert int(headers["content-length"]) == len(body)
    assert body.startswith(b"<!doctype html>")


async def test_head_has_the_headers_of_get_and_no_body(server):
    _, page, body = await fetch(server, "GET", "/")
    status, headers, nothing = await fetch(server, "HEAD", "/")
    assert (status, nothing) == (200, b"")
    assert headers["content-length"] == page["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/nothing", 404, None),
        ("POST", "/", 405, {"GET", "HEAD"}),
        ("GET", "/login", 405, {"POST"}),
        ("GET", "/logout", 405, {"POST"}),
    ],
)
async def test_all_else_is_refused(server, method, path, status, allowed):
    answered, headers, _ = await fetch(server, method, path)
    assert answered == status
    assert allowed is None or set(headers["allow"].split(", ")) == allowed
