"""proxy_protocol: a PROXY header before the head of a request, on both kinds of wire."""

import asyncio

import pytest

from fastws import Server

from ..lib.http import application_of_client
from ..lib.proxy import MOST, binary, line
from ..lib.raw import BINARY, TEXT, TIMEOUT, frame, request
from ..lib.support import Echo, Recorder, counted, eventually, needs_proc, nothing_left, resident
from ..protocol.test_proxy_protocol import IPV4, MALFORMED, WHOLE

LOCAL = ["127.0.0.1"]
UPGRADE = request("/ws/cars")
ANN = line("TCP4", "1.1.1.1", "9.9.9.9", 4711, 80)
BOB = binary(b"\x02\x02\x02\x02" + IPV4[4:])
SPOOFED = request("/ws/cars", extra=[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https")])


@pytest.fixture
async def open_site(serve, wire):
    """`await open_site(listener, **options)`: PROXY headers are required; in the end nothing is left."""
    sites = []

    async def start(listener=None, **options):
        options = {"trusted_proxies": LOCAL, "proxy_protocol": "required", "max_connections_per_ip": 100, **options}
        sites.append(await serve(listener, **options))
        return sites[-1]

    yield start
    for site in sites:
        await eventually(lambda site=site: nothing_left(site))


@pytest.fixture
async def call(open_site, dial):
    """`await call(site, bytes, ...)` is a raw client that has sent these pieces, and leaves after the test."""
    opened = []

    async def connect(site, *pieces):
        opened.append(await dial(site.url))
        await opened[-1].send(pieces[0], pieces=pieces[1:])
        return opened[-1]

    yield connect
    for raw in opened:
        raw.close()


def peers_at(recorder):
    return [request.remote_address for (request,) in recorder.of("on_handshake")]


@pytest.mark.parametrize(("header", "peer"), WHOLE)
async def test_whoever_a_header_names_is_the_peer(open_site, call, header, peer):
    site = await open_site(recorder := Recorder())
    raw = await call(site, header + SPOOFED)
    assert (await raw.response()).status == 101
    (seen,) = peers_at(recorder)
    if peer == "local":  # the proxy speaks, with header fields of its own
        assert seen == ("6.6.6.6", 0)
    else:
        assert seen == (raw.address if peer is None else peer)
    (asked,) = recorder.of("on_handshake")[0]
    assert asked.is_secure is (peer == "local")


async def test_a_named_peer_that_is_a_proxy_may_name_its_client(open_site, call):
    site = await open_site(recorder := Recorder(), trusted_proxies=[*LOCAL, "1.1.1.1"])
    raw = await call(site, ANN + SPOOFED)
    assert (await raw.response()).status == 101
    assert peers_at(recorder) == [("6.6.6.6", 0)]


@pytest.mark.parametrize("header", [ANN, BOB, line("UNKNOWN"), binary(IPV4 + bytes(200))])
async def test_it_may_be_split_anywhere(open_site, call, header):
    site = await open_site(recorder := Recorder())
    sent = header + UPGRADE
    for cut in range(1, len(header) + 2):
        raw = await call(site, sent[:cut], sent[cut:])
        assert (await raw.response()).status == 101, cut
        raw.close()
    assert len(set(peers_at(recorder)[:-1])) == 1 or header == line("UNKNOWN")


@pytest.mark.parametrize("header", [ANN, BOB])
async def test_it_may_come_byte_by_byte_and_messages_right_behind(open_site, call, header):
    site = await open_site(Echo())
    sent = header + UPGRADE
    raw = await call(site, *(sent[at : at + 1] for at in range(len(sent))))
    assert (await raw.response()).status == 101
    raw = await call(site, sent + frame(TEXT, b"hi") + frame(BINARY, b"ho"))
    assert (await raw.response()).status == 101
    assert [(await raw.frame()).payload, (await raw.frame()).payload] == [b"hi", b"ho"]


@pytest.mark.parametrize("header", MALFORMED)
async def test_what_is_malformed_is_400(open_site, call, header):
    site = await open_site()
    raw = await call(site, header + UPGRADE)
    response = await raw.response()
    assert (response.status, response.error["message"]) == (400, "the PROXY header is malformed")
    assert await raw.eof() == b""
    assert counted(site) == 0


@pytest.mark.parametrize("first", [UPGRADE, b"PUT / HTTP/1.1\r\n", b"x", b"\x16\x03\x01\x00", b"\r\n\r\nGET"])
async def test_where_it_is_required_nothing_else_may_come_first(open_site, call, first):
    site = await open_site()
    raw = await call(site, first)
    response = await raw.response()
    assert (response.status, response.error["message"]) == (400, "a PROXY header has to come first, from a proxy")
    assert await raw.eof() == b""


async def test_where_it_is_optional_a_proxy_may_send_none(open_site, call):
    site = await open_site(recorder := Recorder(), proxy_protocol="optional")
    for sent in ([UPGRADE], [ANN + UPGRADE], [b"", UPGRADE], [SPOOFED[:1], SPOOFED[1:]]):
        raw = await call(site, *sent)
        assert (await raw.response()).status == 101
    raw = await call(site, *(UPGRADE[at : at + 1] for at in range(len(UPGRADE))))
    assert (await raw.response()).status == 101
    seen = peers_at(recorder)
    assert (seen[1], seen[3]) == (("1.1.1.1", 4711), ("6.6.6.6", 0))
    assert {host for host, _ in (seen[0], seen[2], seen[4])} == {"127.0.0.1"}
    raw = await call(site, b"PROPFIND / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await raw.response()).status == 404


@pytest.mark.parametrize("proxy_protocol", ["optional", "required"])
async def test_whoever_is_not_trusted_may_not_send_it_and_need_not(open_site, call, proxy_protocol):
    site = await open_site(recorder := Recorder(), trusted_proxies=["10.0.0.0/8"], proxy_protocol=proxy_protocol)
    for header in (ANN, BOB, binary(command=0, family=0, kind=0), b"PROXY nonsense\r\n"):
        raw = await call(site, header + UPGRADE)
        response = await raw.response()
        assert (response.status, response.error["message"]) == (
            400,
            "a PROXY header is only taken from trusted_proxies",
        )
    raw = await call(site, SPOOFED)
    assert (await raw.response()).status == 101
    assert peers_at(recorder) == [raw.address]


async def test_without_the_option_a_header_is_bad_http(open_site, call):
    site = await open_site(proxy_protocol="off")
    for header in (ANN, BOB):
        raw = await call(site, header + UPGRADE)
        assert (await raw.response()).status == 400


async def test_whoever_is_named_is_counted_from_then_on(open_site, call):
    site = await open_site(max_connections_per_ip=2)
    silent = await call(site, ANN)
    await eventually(lambda: counted(site) == 1)
    half = await call(site, ANN + UPGRADE[:30])
    over = await call(site, ANN)
    assert (await over.response()).status == 503
    other = await call(site, BOB + UPGRADE)
    assert (await other.response()).status == 101
    assert counted(site) == 2
    silent.close()
    await half.send(UPGRADE[30:])
    assert (await half.response()).status == 101

    async def has_room():
        raw = await call(site, ANN + UPGRADE)
        return (await raw.response()).status == 101

    async with asyncio.timeout(TIMEOUT):
        while not await has_room():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("sent", [b"", b"P", ANN[:20], ANN, BOB[:13], BOB[:20], BOB, ANN + UPGRADE[:-1]])
async def test_whoever_stops_halfway_gets_408_and_is_forgotten(open_site, call, sent, caplog):
    site = await open_site(handshake_timeout=0.3)
    raw = await call(site, sent)
    assert (await raw.response()).status == 408
    assert await raw.eof() == b""
    seen = caplog.records[-1].remote_address
    assert seen == (("1.1.1.1", 4711) if sent.startswith(ANN) else ("2.2.2.2", 4711) if sent == BOB else raw.address)


@pytest.mark.parametrize("sent", [b"P", ANN[:20], ANN, BOB[:20], BOB, BOB + UPGRADE[:-1], ANN + UPGRADE])
async def test_whoever_leaves_halfway_is_forgotten(open_site, call, sent):
    site = await open_site()
    raw = await call(site, sent)
    await asyncio.sleep(0.01)
    raw.reset()
    raw = await call(site, sent)
    raw.half_close()
    await raw.eof()


async def test_a_large_header_takes_nothing_from_the_heads_size(open_site, call):
    header = binary(IPV4 + bytes(MOST - len(IPV4)))
    padding = ("x", "y" * (1024 - len(request("/ws/cars", extra=[("x", "")]))))
    fits = request("/ws/cars", extra=[padding])
    assert len(fits) == 1024
    site = await open_site(max_header_size=1024)
    raw = await call(site, header + fits)
    assert (await raw.response()).status == 101
    raw = await call(site, header[:2000], header[2000:] + fits[:500], fits[500:])
    assert (await raw.response()).status == 101
    raw = await call(site, header + fits.replace(b"yy", b"yyy", 1))
    assert (await raw.response()).status == 431


async def test_a_second_header_is_bad_http(open_site, call):
    site = await open_site()
    raw = await call(site, ANN + ANN + UPGRADE)
    assert (await raw.response()).status == 400


@needs_proc
async def test_headers_without_end_take_little_memory(open_site, call):
    site = await open_site(max_connections_per_ip=None)
    half = binary(IPV4 + bytes(MOST - len(IPV4)))[:-1]
    before = resident()
    clients = [await call(site, half) for _ in range(200)]
    await eventually(lambda: site.server._reactor.counters["inbound_bytes"] >= 200 * len(half))
    assert site.server._reactor.counters["inbound_bytes"] <= 200 * 2 * len(half)
    assert resident() - before < 200 * 10 * len(half)
    for raw in clients:
        raw.reset()


async def test_a_unix_socket_may_have_one(tmp_path, wire):
    options = {"trusted_proxies": ["unix"], "proxy_protocol": "required", "max_connections_per_ip": 1}
    server = Server(uds=str(tmp_path / "s"), **options)
    server.endpoint("/ws/{channel}", recorder := Recorder())
    async with server:
        streams = [await asyncio.open_unix_connection(server.host) for _ in range(3)]
        statuses = []
        for header, (reader, writer) in zip((ANN, BOB, ANN), streams, strict=True):
            writer.write(header + UPGRADE)
            statuses.append((await reader.readline()).split()[1])
        assert statuses == [b"101", b"101", b"503"]
        assert peers_at(recorder) == [("1.1.1.1", 4711), ("2.2.2.2", 4711)]
        for _, writer in streams:
            writer.transport.abort()


GET = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"


@pytest.mark.parametrize(
    ("header", "http_peer", "upgraded_peer"),
    [
        (ANN, b"http 1.1.1.1:4711", ("1.1.1.1", 4711)),
        (line("UNKNOWN"), None, None),
        (binary(command=0, family=0, kind=0), b"http 6.6.6.6:0", ("6.6.6.6", 0)),
    ],
)
async def test_http_and_an_upgrade_after_it_have_the_same_peer(open_site, call, header, http_peer, upgraded_peer):
    site = await open_site(recorder := Recorder(), http=application_of_client)
    raw = await call(site, header + GET)
    itself = "http {}:{}".format(*raw.address).encode()
    for _ in range(2):
        assert (await raw.response()).body == (http_peer or itself)
        assert counted(site) == 1
        await raw.send(GET)
    await raw.response()
    await raw.send(SPOOFED)
    assert (await raw.response()).status == 101
    assert peers_at(recorder) == [upgraded_peer or raw.address]
    assert counted(site) == 1


async def test_a_header_between_requests_is_bad_http(open_site, call):
    site = await open_site(http=application_of_client)
    raw = await call(site, ANN + GET)
    await raw.response()
    await raw.send(BOB + GET)
    assert (await raw.response()).status == 400
