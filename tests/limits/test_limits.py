"""max_connections_per_ip: an address gets no more than its share, and releases it."""

import asyncio
import socket

import pytest

from fastws import Server
from fastws.testing import Refused

from ..lib.raw import Raw, request
from ..lib.support import Echo, Recorder, counted, eventually, nothing_left

UPGRADE = request("/ws/cars")


async def dial_from(host, url):
    """A raw client with its own address."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((host, 0))
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(url.rpartition(":")[2])))
    return Raw(sock)


async def test_one_connection_over_it_is_503_until_another_leaves(serve, join, any_wire):
    server_options, client_options = any_wire
    site = await serve(recorder := Recorder(), max_connections_per_ip=2, **server_options)
    first = await join(f"{site.url}/ws/cars", **client_options)
    second = await join(f"{site.url}/ws/cars", **client_options)
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await join(f"{site.url}/ws/cars", **client_options)
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) > 0
        assert refused.value.error["message"] == "too many connections from this address"
    await first.close()
    await recorder.until("on_close")
    third = await join(f"{site.url}/ws/cars", **client_options)
    assert await third.received() == []
    second.abort()
    await third.close()
    await eventually(lambda: nothing_left(site))


async def test_half_handshakes_count_and_whoever_was_refused_does_not(serve, dial, join):
    site = await serve(max_connections_per_ip=2)
    silent, half = await dial(site.url), await dial(site.url)
    await half.send(UPGRADE[:20])
    refused = [await dial(site.url) for _ in range(5)]  # these stay, and do not read the answer yet
    with pytest.raises(Refused) as over:
        await join(f"{site.url}/ws/cars")
    assert over.value.status == 503
    silent.close()
    await half.send(UPGRADE[20:])
    assert (await half.response()).status == 101
    client = await join(f"{site.url}/ws/cars")
    assert await client.received() == []
    for raw in refused:
        assert (await raw.response()).status == 503
        assert await raw.eof() == b""


async def test_a_flood_from_one_address_leaves_the_others_room(serve, dial):
    site = await serve(max_connections_per_ip=3)
    flood = [await dial(site.url) for _ in range(100)]
    other = await dial_from("127.0.0.2", site.url)
    await other.upgrade("/ws/cars")
    assert counted(site) == 2
    for raw in flood[3:]:
        assert (await raw.response()).status == 503
    for raw in (other, *flood):
        raw.close()
    await eventually(lambda: nothing_left(site))


async def test_a_refused_peer_that_stays_is_dropped_sooner_than_others(serve, dial):
    site = await serve(max_connections_per_ip=1, close_timeout=60)
    await dial(site.url)
    refused = await dial(site.url)
    assert (await refused.response()).status == 503
    await eventually(lambda: site.server._reactor.counters["connections"] == 1)


async def test_every_way_to_end_gives_the_place_back(serve, dial):
    site = await serve(max_connections_per_ip=1)

    async def free():
        await eventually(lambda: counted(site) == 0)

    raw = await dial(site.url, "/ws/cars")
    raw.reset()
    await free()
    raw = await dial(site.url)
    await raw.send(b"\x16\x03\x01 no HTTP\r\n\r\n")
    assert (await raw.response()).status == 400
    await free()
    raw = await dial(site.url)
    await raw.send(request("/nowhere"))
    assert (await raw.response()).status == 404
    await free()
    assert (await (await dial(site.url)).upgrade("/ws/cars")).status == 101


async def test_whoever_never_says_anything_gives_the_place_back(serve, dial):
    site = await serve(max_connections_per_ip=1, handshake_timeout=0.1)
    raw = await dial(site.url)
    assert (await raw.response()).status == 408
    await eventually(lambda: counted(site) == 0)


class Peer(asyncio.Transport):
    """A transport with a given peer address, which records what it is sent."""

    def __init__(self, address):
        super().__init__({"peername": address})
        self.sent = b""
        self.is_aborted = False

    def write(self, data):
        self.sent += data

    def writelines(self, parts):
        self.sent += b"".join(parts)

    def write_eof(self): ...
    def close(self): ...
    def pause_reading(self): ...
    def resume_reading(self): ...
    def set_write_buffer_limits(self, high=None, low=None): ...
    def get_write_buffer_size(self):
        return 0

    def abort(self):
        self.is_aborted = True


@pytest.mark.parametrize(
    ("first", "second", "is_the_same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("192.0.2.1", 1), ("::ffff:192.0.2.1", 1, 0, 0), True),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.2", 1, 0, 0), False),
        (("2001:db8:1:2::1", 1, 0, 0), ("2001:db8:1:2:ffff::2", 1, 0, 0), True),
        (("2001:db8:1:2::1", 1, 0, 0), ("2001:db8:1:3::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 1, 0, 2), True),
        (("::1", 1, 0, 0), ("::1", 2, 0, 0), True),
        (("::1", 1, 0, 0), ("0.0.0.0", 1), False),
    ],
)
async def test_an_address_is_ipv4_or_a_64_of_ipv6(serve, first, second, is_the_same):
    site = await serve(max_connections_per_ip=1)
    wires = []
    for peer in (Peer(first), Peer(second)):
        any_wire = site.server._wire()
        any_wire.connection_made(peer)
        wires.append((any_wire, peer))
    await asyncio.sleep(0)
    await eventually(lambda: (b" 503 " in wires[1][1].sent) is is_the_same)
    assert wires[0][1].sent == b""
    assert counted(site) == (1 if is_the_same else 2)
    for any_wire, _ in wires:
        any_wire.connection_lost(None)
    await eventually(lambda: nothing_left(site))


async def test_a_unix_socket_has_no_addresses(tmp_path):
    server = Server(uds=str(tmp_path / "s"), max_connections_per_ip=1)
    server.endpoint("/ws", Echo())
    async with server:
        streams = [await asyncio.open_unix_connection(server.host) for _ in range(5)]
        for reader, writer in streams:
            writer.write(request("/ws"))
            assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
        for _, writer in streams:
            writer.transport.abort()


async def test_without_the_option_nothing_is_counted(serve, join):
    site = await serve()
    await join(f"{site.url}/ws/cars")
    assert counted(site) == 0


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
def test_what_is_no_number_of_connections_is_refused_at_start(value):
    with pytest.raises(ValueError, match="max_connections_per_ip"):
        Server(port=0, max_connections_per_ip=value)
