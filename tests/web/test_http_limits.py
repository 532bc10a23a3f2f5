"""What a connection may do in the HTTP application: no more than in the engine."""

import asyncio
import logging

import pytest

from fastws.testing import Refused

from ..lib.http import BIG, CHUNKED, GET, HI, MAX, MIB, SAYS_HI, UPGRADE, WAIT
from ..lib.raw import TIMEOUT, send_and_reset
from ..lib.support import counted, eventually

# -- time


@pytest.mark.parametrize("part", [b"G", GET[:20], GET[:-1], WAIT[:-2] + b"X-A"])
async def test_half_a_head_is_held_for_handshake_timeout_and_no_longer(open_site, dial_http, part):
    site = await open_site(handshake_timeout=1, close_timeout=0.2)
    peer = await dial_http(site)
    await peer.send(part)
    status, body = await peer.answer()
    assert (status, "no complete request within handshake_timeout" in body) == (408, True)
    assert await peer.end() == b""
    await eventually(lambda: counted(site) == 0)


async def test_drops_of_a_head_buy_no_time(open_site, dial_http):
    site = await open_site(handshake_timeout=1)
    peer = await dial_http(site)

    async def drip():
        await peer.send(b"GET /hello HTTP/1.1\r\n")
        while True:
            await peer.send(b"X-A: b\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    assert (await peer.answer())[0] == 408
    dripping.cancel()


async def test_a_connection_without_a_next_request_is_closed_without_a_word(open_site, dial_http):
    site = await open_site(handshake_timeout=1)
    peer = await dial_http(site)
    assert await peer.end() == b""
    blank = await dial_http(site)
    await blank.send(b"\r\n")  # before a request line these are ignored (RFC 9112 2.2)
    assert await blank.end() == b""


async def test_the_rest_of_a_body_that_was_answered_already_has_handshake_timeout(open_site, dial_http):
    site = await open_site(handshake_timeout=1)
    peer = await dial_http(site)
    await peer.send(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n")
    assert (await peer.answer())[0] == 405
    assert await peer.end() == b""


async def test_a_handler_takes_the_time_that_it_takes(open_site, dial_http, app):
    site = await open_site(handshake_timeout=1, idle_timeout=1)
    peer = await dial_http(site, kept_alive=False)
    await peer.send(WAIT)
    await asyncio.sleep(1.5)
    app.release.set()
    assert await peer.answer() == (200, "done")


async def test_a_body_that_stalls_is_waited_for_as_long_as_idle_timeout(open_site, dial_http, caplog):
    caplog.set_level(logging.INFO, logger="fastws.http")
    site = await open_site(idle_timeout=0.2)
    peer = await dial_http(site)
    await peer.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
    assert not await peer.end()
    assert "dropping an HTTP connection: its request body has stalled" in caplog.text
    await eventually(lambda: counted(site) == 0)


async def test_a_body_that_nobody_asked_for_yet_is_not_missed(open_site, dial_http, app):
    site = await open_site(idle_timeout=0.1)
    peer = await dial_http(site)
    await peer.send(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    await app.waiting.wait()
    await asyncio.sleep(0.4)
    app.release.set()
    assert await peer.answer() == (200, "done")


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"], ids=["kept alive", "to be closed"])
async def test_an_answer_that_is_not_read_is_kept_for_idle_timeout(open_site, dial_http, caplog, fields):
    caplog.set_level(logging.INFO, logger="fastws.http")
    # For a write this large, uvloop's TLS reports only the end of the answer.
    site = await open_site(idle_timeout=1, handshake_timeout=1)
    peer = await dial_http(site, limit=1024)
    await peer.send(BIG % fields)
    await eventually(lambda: counted(site) == 0)
    assert "dropping an HTTP connection: it does not read the response" in caplog.text


async def test_whoever_reads_slowly_gets_the_whole_answer(open_site, dial_http):
    site = await open_site(idle_timeout=3, handshake_timeout=20)
    peer = await dial_http(site, kept_alive=False, limit=1024)
    await peer.send(BIG % b"")
    await peer.until(b"\r\n\r\n")
    for _ in range(20):
        async with asyncio.timeout(TIMEOUT):
            await peer.reader.readexactly(MIB)
        await asyncio.sleep(0.2)
    async with asyncio.timeout(TIMEOUT):
        await peer.reader.readexactly(12 * MIB)


async def test_without_idle_timeout_nothing_is_dropped(open_site, dial_http):
    site = await open_site(idle_timeout=0, handshake_timeout=1)
    peer = await dial_http(site, kept_alive=False)
    await peer.send(CHUNKED)
    await asyncio.sleep(1.5)
    await peer.send(b"1\r\nx\r\n0\r\n\r\n")
    assert await peer.answer() == (200, "x")


# -- size


def head_of(size, end=b"\r\n\r\n"):
    start = b"GET /hello HTTP/1.1\r\nHost: x\r\nX-A: "
    return start + b"a" * (size - len(start) - len(end)) + end


async def test_max_header_size_holds_for_each_head_to_the_blank_before_a_value(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    for _ in range(3):
        await peer.send(head_of(MAX))
        assert (await peer.answer())[0] == 200
    await peer.send(head_of(MAX + 3))
    status, body = await peer.answer()
    assert (status, f"the request head exceeds {MAX} bytes" in body) == (431, True)
    assert await peer.end() == b""


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"a" * 8, b"\r\n" * 4], ids=["fields", "a field", "blank lines"])
async def test_a_head_without_end_is_refused_and_the_neighbours_are_served(open_site, dial_http, join, any_wire, piece):
    site = await open_site()
    neighbour = await join(f"{site.url}/ws/cars", **any_wire[1])
    peer = await dial_http(site)
    peer.writer.write(b"" if piece == b"\r\n" * 4 else b"GET /hello HTTP/1.1\r\nHost: x\r\nX-B: ")
    peer.writer.write(piece * (4 * MIB))  # 32 MiB
    await neighbour.send("hi")
    assert await neighbour.receive() == "hi"
    assert (await peer.answer())[0] == 431
    assert await peer.end() == b""


@pytest.mark.parametrize(
    "piece",
    [b"1;" + b"a" * (2 * MAX), b"0" * (2 * MAX) + b"1", b"0\r\n" + b"X-A: b\r\n" * MAX],
    ids=["an extension", "a size", "trailers"],
)
async def test_a_body_has_no_endless_decoration(open_site, dial_http, piece):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(CHUNKED + b"3\r\none\r\n", piece)
    status, body = await peer.answer()
    assert (status, '"code":400' in body) == (400, True)
    assert await peer.end() == b""
    await eventually(lambda: not site.server._admission.http._state.tasks)  # and the application does not wait forever


async def test_trailers_are_no_header_fields(open_site, dial_http):
    site = await open_site()
    peer = await dial_http(site)
    await peer.send(CHUNKED.replace(b"echo", b"headers"), b"0\r\nX-Admin: yes\r\n\r\n")
    assert await peer.answer() == (200, '["host","transfer-encoding"]')


# -- numbers


async def test_an_address_holds_its_places_while_it_is_kept_alive(open_site, dial_http):
    site = await open_site(max_connections_per_ip=3)
    peers = [await dial_http(site) for _ in range(3)]
    for _ in range(3):
        over = await dial_http(site, kept_alive=False)
        await over.send(GET)
        assert (await over.answer())[0] == 503
    peers[0].leave()
    await eventually(lambda: site.server._admission.http.connection_count == 2)
    await dial_http(site)
    for peer in peers:
        peer.leave()


async def test_an_upgrade_takes_the_place_along(open_site, dial_http):
    site = await open_site(max_connections_per_ip=1, max_connections=1)
    peer = await dial_http(site)
    await peer.send(UPGRADE, HI)
    assert (await peer.answer())[0] == 101
    await peer.until(SAYS_HI)
    assert (counted(site), site.server._admission.http.connection_count) == (1, 0)
    over = await dial_http(site, kept_alive=False)
    await over.send(GET)
    assert (await over.answer())[0] == 503
    peer.leave()
    await eventually(lambda: counted(site) == 0)


async def test_max_connections_counts_what_http_has(open_site, dial_http, join, any_wire):
    site = await open_site(max_connections=2)
    client = await join(f"{site.url}/ws/cars", **any_wire[1])
    peer = await dial_http(site)
    with pytest.raises(Refused) as refused:
        await join(f"{site.url}/ws/cars", **any_wire[1])
    assert refused.value.status == 503
    over = await dial_http(site, kept_alive=False)
    await over.send(GET)
    head = await over.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: " in head
    peer.leave()
    await eventually(lambda: site.server._admission.http.connection_count == 0)
    await dial_http(site)
    await client.close()


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_whoever_resets_gives_the_place_back(open_site, app, turns):
    site = await open_site()
    app.release.set()
    if site.server.options.ssl is not None:
        return
    for data in (GET, WAIT, GET + b"GET", GET + UPGRADE):
        await send_and_reset(site.url, data, times=20, turns=turns)
    await eventually(lambda: counted(site) == 0)
