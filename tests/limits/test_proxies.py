"""trusted_proxies: whose word counts for where a request comes from, and under which address it is counted."""

import asyncio
import logging
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws import Server
from fastws._core import Headers
from fastws.proxies import Origin, Proxies, request_id
from fastws.testing import Refused

from ..lib.http import application_of_client
from ..lib.raw import TEXT, close_frame, frame, request
from ..lib.support import Echo, Recorder, counted, eventually, nothing_left, records_naming

LOCAL = ["127.0.0.1"]
PEER = ("10.0.0.1", 4711)
TRUSTED = Proxies(["10.0.0.0/8", "2001:db8:ffff::/48", "192.0.2.200", "unix"])


def forwarded_for(*hosts):
    return [("X-Forwarded-For", ", ".join(hosts))]


# -- who is trusted


@pytest.mark.parametrize(
    ("trusted", "hosts", "others"),
    [
        (["127.0.0.1"], ["127.0.0.1", "::ffff:127.0.0.1"], ["127.0.0.2", "::1", "", "unix", "localhost", "127.0.0.1x"]),
        (["10.0.0.0/8"], ["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"], ["11.0.0.0", "::a00:1"]),
        (["::1"], ["::1", "0:0:0:0:0:0:0:1"], ["::2", "127.0.0.1"]),
        (["fe80::/10"], ["fe80::1", "fe80::1%eth0"], ["ff80::1"]),
        (["::ffff:10.0.0.0/104"], ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0"]),
        (["0.0.0.0/0"], ["1.2.3.4", "::ffff:1.2.3.4"], ["::1", "unix"]),
        (["unix"], ["unix"], ["", "127.0.0.1"]),
        ([], [], ["", "unix", "127.0.0.1"]),
    ],
)
def test_a_peer_is_trusted_by_its_address_or_network(trusted, hosts, others):
    proxies = Proxies(trusted)
    assert bool(proxies) is bool(trusted)
    assert [host for host in hosts if not proxies.trusts(host)] == []
    assert [host for host in others if proxies.trusts(host)] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trusted_proxies": "127.0.0.1"}, "trusted_proxies='127.0.0.1' must be a list of strings"),
        ({"trusted_proxies": [1]}, r"trusted_proxies=\[1\] must be a list of strings"),
        ({"trusted_proxies": ["nginx"]}, "'nginx' is not an address, a network such as '10.0.0.0/8', or 'unix'"),
        ({"trusted_proxies": ["10.0.0.1/8"]}, "'10.0.0.1/8' is an address within a network: use '10.0.0.0/8'"),
        ({"trusted_proxies": ["10.0.0.0/33"]}, "'10.0.0.0/33' is not an address"),
        ({"trusted_proxies": LOCAL, "proxy_protocol": "on"}, "proxy_protocol='on': choose off, optional or required"),
        ({"proxy_protocol": "required"}, "proxy_protocol='required' needs trusted_proxies"),
    ],
)
def test_what_cannot_work_is_one_sentence_at_start(options, message):
    with pytest.raises(ValueError, match=message) as said:
        Server(port=0, **options)
    assert "\n" not in str(said.value)


def test_a_proxy_header_does_not_go_with_tls(server_side):
    with pytest.raises(ValueError, match="does not go with ssl"):
        Server(port=0, trusted_proxies=LOCAL, proxy_protocol="optional", ssl=server_side)


# -- what they say


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("1.2.3.4", "1.2.3.4", 0),
        ("1.2.3.4:5678", "1.2.3.4", 5678),
        ("6.6.6.6, 1.2.3.4", "1.2.3.4", 0),
        ("6.6.6.6, 1.2.3.4, 10.0.0.2, 10.0.0.3", "1.2.3.4", 0),
        ("6.6.6.6,1.2.3.4 ,\t10.0.0.2", "1.2.3.4", 0),
        ("6.6.6.6,, 1.2.3.4, ,", "1.2.3.4", 0),
        ("2001:db8::1", "2001:db8::1", 0),
        ("[2001:db8::1]", "2001:db8::1", 0),
        ("[2001:DB8:0::1]:443", "2001:db8::1", 443),
        ("::ffff:1.2.3.4", "1.2.3.4", 0),
        ("6.6.6.6, ::ffff:10.0.0.2", "6.6.6.6", 0),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3", 0),  # all trusted: the farthest
        ("1.2.3.4, 192.0.2.200, 2001:db8:ffff::7", "1.2.3.4", 0),
        ("", *PEER),
        (" , ,", *PEER),
        ("unknown", *PEER),
        ("1.2.3.4, unknown", *PEER),
        ("1.2.3.4, unknown, 10.0.0.2", "10.0.0.2", 0),
        ("1.2.3.4, 10.0.0.256", *PEER),
        ("1.2.3.4, 10.0.0.2:65536", *PEER),
        ("1.2.3.4:", *PEER),
        ("1.2.3.4:x", *PEER),
        ("1.2.3", *PEER),
        ("01.2.3.4", *PEER),
        ("[1.2.3.4]", *PEER),
        ("[::1", *PEER),
        ("fe80::1%eth0", *PEER),
        ('"1.2.3.4"', *PEER),
        ("1.2.3.4\u00b2", *PEER),
        ("\u0661.2.3.4", *PEER),
        ("unix", *PEER),
        ("1.2.3.4 5.6.7.8", *PEER),
    ],
)
def test_the_last_address_that_is_not_trusted_is_the_client(value, host, port):
    assert TRUSTED.origin(Headers([("x-forwarded-for", value)]), PEER, False) == Origin(host, port, False)


ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(network="10.0.0.0/8"),
    st.ip_addresses(network="2001:db8:ffff::/48"),
    st.sampled_from(["", "unknown", "unix", "10.0.0", "x"]),
).map(str)


@given(st.lists(ADDRESSES, max_size=6))
def test_the_search_ends_as_in_a_model(hosts):
    found, rest = PEER[0], [host for host in hosts if host]
    while rest and TRUSTED.trusts(found):
        if rest[-1][0] in "ux" or rest[-1] == "10.0.0":
            break
        address = ip_address(rest.pop())
        found = str(getattr(address, "ipv4_mapped", None) or address)
    fields = [("x-forwarded-for", ", ".join(hosts))]
    assert TRUSTED.origin(Headers(fields), PEER, False).host == found


@pytest.mark.parametrize(
    ("value", "host", "port", "is_secure"),
    [
        ("for=1.2.3.4", "1.2.3.4", 0, False),
        ("For=1.2.3.4;Proto=HTTPS;By=10.0.0.1", "1.2.3.4", 0, True),
        ('for="1.2.3.4:5678" ; host=a.org', "1.2.3.4", 5678, False),
        ('for="[2001:db8::1]:443";proto=https', "2001:db8::1", 443, True),
        ('for=6.6.6.6;proto=http, for=1.2.3.4;proto=https, for="10.0.0.2"', "1.2.3.4", 0, True),
        ("for=1.2.3.4;proto=https, for=10.0.0.2;proto=http", "1.2.3.4", 0, True),
        ("for=1.2.3.4, for=unknown;proto=https", *PEER, True),
        ("for=1.2.3.4, for=_hidden", *PEER, False),
        ("for=1.2.3.4, proto=https", *PEER, True),
        ('for="1.2.3.4', *PEER, False),
        ('for="6.6.6.6, for=1.2.3.4', "1.2.3.4", 0, False),  # a stranger's quote hides nothing
        ('for=6.6.6.6;x=", for=1.2.3.4;y="z"', "1.2.3.4", 0, False),
        ("for=6.6.6.6;for=7.7.7.7", *PEER, False),
        ("for=2001:db8::1", *PEER, False),
        ("for", *PEER, False),
        ("for=", *PEER, False),
        ("for=1.2.3.4;", *PEER, False),
        ("for = 1.2.3.4", *PEER, False),
        ("", *PEER, False),
    ],
)
def test_forwarded_is_read_likewise(value, host, port, is_secure):
    assert TRUSTED.origin(Headers([("forwarded", value)]), PEER, False) == Origin(host, port, is_secure)


def test_x_forwarded_for_goes_first_since_a_stranger_may_have_written_the_other():
    fields = [("forwarded", "for=6.6.6.6;proto=https"), ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")]
    assert TRUSTED.origin(Headers(fields), PEER, False) == Origin("1.2.3.4", 0, False)


@pytest.mark.parametrize(
    ("value", "was_secure", "is_secure"),
    [
        ("https", False, True),
        ("WSS", False, True),
        ("http", True, False),
        ("ws", True, False),
        ("https, http", False, False),
        ("http, https", False, True),
        ("", True, True),
        ("gopher", True, True),
        ("gopher", False, False),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(value, was_secure, is_secure):
    assert TRUSTED.origin(Headers([("x-forwarded-proto", value)]), PEER, was_secure) == Origin(*PEER, is_secure)


@pytest.mark.parametrize(
    ("values", "given"),
    [
        (["7f3a-11"], "7f3a-11"),
        (["Root=1-67891233-abcdef012345678912345678"], "Root=1-67891233-abcdef012345678912345678"),
        (["x" * 64], "x" * 64),
        (["x" * 65], None),
        ([""], None),
        (["a b"], None),
        (['a"b'], None),
        (["a\u00e9"], None),
        (["a", "b"], None),
        ([], None),
    ],
)
def test_a_request_id_is_taken_if_it_is_short_and_harmless(values, given):
    assert request_id(Headers([("x-request-id", value) for value in values])) == given


# -- on the wire


def peers_at(recorder):
    return [request.remote_address for (request,) in recorder.of("on_handshake")]


async def test_a_listener_sees_the_client(serve, dial, wire, caplog):
    caplog.set_level(logging.INFO, "fastws.access")
    site = await serve(recorder := Recorder(), trusted_proxies=LOCAL)
    raw = await dial(site.url)
    said = [*forwarded_for("6.6.6.6", "1.2.3.4:99"), ("X-Forwarded-Proto", "https"), ("X-Request-ID", "7f3a-11")]
    await raw.upgrade("/ws/cars", extra=said)
    (ws,) = await recorder.until("on_open")
    assert ws.remote_address == ws.request.remote_address == ("1.2.3.4", 99)
    assert ws.is_secure
    assert ws.request.is_secure
    assert "- 1.2.3.4 /ws/cars 101" in caplog.text
    assert caplog.records[-1].request_id == "7f3a-11"
    bare = await dial(site.url)
    await bare.upgrade("/ws/cars")
    assert peers_at(recorder)[1] == bare.address
    ipv6 = await dial(site.url)
    await ipv6.upgrade("/ws/cars", extra=forwarded_for("2001:db8::7"))
    assert peers_at(recorder)[2] == ("2001:db8::7", 0)


@pytest.mark.parametrize("trusted", [[], ["10.0.0.0/8", "::1", "unix"]])
async def test_whoever_is_not_trusted_says_nothing(serve, dial, wire, trusted, caplog):
    site = await serve(recorder := Recorder(), trusted_proxies=trusted)
    said = [
        *forwarded_for("1.2.3.4"),
        ("Forwarded", "for=1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("X-Request-ID", "mine"),
    ]
    raw = await dial(site.url)
    await raw.upgrade("/ws/cars", extra=said)
    (ws,) = await recorder.until("on_open")
    assert ws.remote_address == raw.address
    assert not ws.is_secure
    refused = await dial(site.url)
    await refused.send(request("/nowhere", extra=said))
    assert (await refused.response()).error["request_id"] != "mine"
    assert caplog.records[-1].remote_address == refused.address


async def test_a_proxy_may_speak_tls_too(serve, join, server_side, client_side):
    site = await serve(recorder := Recorder(), trusted_proxies=LOCAL, ssl=server_side, max_connections_per_ip=1)
    for host, scheme, is_secure in (("1.1.1.1", "http", False), ("2.2.2.2", "https", True), ("3.3.3.3", "", True)):
        headers = {"X-Forwarded-For": host, "X-Forwarded-Proto": scheme}
        await join(f"{site.url}/ws/cars", headers=headers, ssl=client_side)
        (asked,) = recorder.of("on_handshake")[-1]
        assert (asked.remote_address, asked.is_secure) == ((host, 0), is_secure)
    assert counted(site) == 3


@pytest.mark.parametrize("over_epoll", [True, False])
async def test_a_unix_socket_can_be_trusted(tmp_path, monkeypatch, over_epoll):
    if not over_epoll:
        monkeypatch.setattr("fastws.server.has_epoll", False)
    for trusted, seen in ([["unix"], ("1.2.3.4", 0)], [["127.0.0.1"], ("", 0)]):
        server = Server(uds=str(tmp_path / "s"), trusted_proxies=trusted, max_connections_per_ip=1)
        server.endpoint("/ws", recorder := Recorder())
        async with server:
            reader, writer = await asyncio.open_unix_connection(server.host)
            writer.write(request("/ws", extra=forwarded_for("1.2.3.4")))
            assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
            assert peers_at(recorder) == [seen]
            writer.transport.abort()


async def test_a_refusal_bears_the_proxys_id_and_the_clients_address(serve, dial, wire, caplog):
    site = await serve(trusted_proxies=LOCAL)
    raw = await dial(site.url)
    await raw.send(request("/nowhere", extra=[*forwarded_for("1.2.3.4"), ("X-Request-ID", "7f3a-11")]))
    assert (await raw.response()).error["request_id"] == "7f3a-11"
    (record,) = records_naming(caplog, "7f3a-11")
    assert record.remote_address == ("1.2.3.4", 0)
    raw = await dial(site.url)
    await raw.send(request("/nowhere", extra=[("X-Request-ID", "<script>")]))
    assert len((await raw.response()).error["request_id"]) == 16


# -- max_connections_per_ip


async def test_clients_are_counted_not_their_proxy(serve, dial, wire):
    site = await serve(recorder := Recorder(), trusted_proxies=LOCAL, max_connections_per_ip=2)
    opened = []
    for host in ("1.1.1.1", "2.2.2.2", "3.3.3.3"):
        for _ in range(2):
            opened.append(await dial(site.url))
            await opened[-1].upgrade("/ws/cars", extra=forwarded_for(host))
    assert counted(site) == 3
    over = await dial(site.url)
    await over.send(request("/ws/cars", extra=forwarded_for("2.2.2.2")))
    refused = await over.response()
    assert (refused.status, refused.error["message"]) == (503, "too many connections from this address")
    assert refused["Retry-After"]
    opened[2].close()
    await recorder.until("on_close")
    again = await dial(site.url)
    await again.upgrade("/ws/cars", extra=forwarded_for("2.2.2.2"))
    for raw in (*opened, again, over):
        raw.close()
    await eventually(lambda: nothing_left(site))


async def test_a_proxy_without_header_fields_counts_as_itself(serve, dial, wire):
    site = await serve(trusted_proxies=LOCAL, max_connections_per_ip=1)
    (first, second) = await dial(site.url), await dial(site.url)
    await first.upgrade("/ws/cars")
    await second.send(request("/ws/cars"))
    assert (await second.response()).status == 503


async def test_until_its_head_is_there_a_proxys_connection_counts_nowhere_but_not_forever(serve, dial, wire):
    site = await serve(trusted_proxies=LOCAL, max_connections_per_ip=1, handshake_timeout=0.2)
    silent = [await dial(site.url) for _ in range(5)]
    await silent[0].send(request("/ws/cars", extra=forwarded_for("1.1.1.1"))[:-2])
    await asyncio.sleep(0)
    assert counted(site) == 0
    for raw in silent:
        assert (await raw.response()).status == 408
        raw.close()
    await eventually(lambda: nothing_left(site))


async def test_every_way_to_end_gives_the_clients_place_back(serve, dial, wire):
    site = await serve(trusted_proxies=LOCAL, max_connections_per_ip=1)
    same = forwarded_for("1.1.1.1")

    async def free():
        await eventually(lambda: counted(site) == 0)

    for target in ("/nowhere", "/ws/cars"):
        raw = await dial(site.url)
        await raw.send(request(target, extra=same))
        await raw.response()
        raw.reset()
        await free()
    raw = await dial(site.url)
    await raw.upgrade("/ws/cars", extra=same)
    await raw.send(close_frame())
    assert await raw.close_code() == 1000
    await free()
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", extra=[*same, ("bad field", "x")]))
    assert (await raw.response()).status == 400
    await free()
    assert (await (await dial(site.url)).upgrade("/ws/cars", extra=same)).status == 101


async def test_an_untrusted_flood_is_counted_as_before(serve, dial, join):
    site = await serve(trusted_proxies=["10.0.0.0/8"], max_connections_per_ip=1)
    first = await dial(site.url)
    with pytest.raises(Refused) as refused:
        await join(f"{site.url}/ws/cars", headers={"X-Forwarded-For": "1.2.3.4"})
    assert refused.value.status == 503
    first.close()
    await eventually(lambda: nothing_left(site))


# -- HTTP


def get(*extra, path="/"):
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in extra)]
    return "\r\n".join([*lines, "", ""]).encode()


async def test_each_request_on_a_kept_alive_connection_has_its_own_client(serve, dial, wire):
    site = await serve(Echo(), http=application_of_client, trusted_proxies=LOCAL, max_connections_per_ip=1)
    raw = await dial(site.url)
    said = []
    for extra in (
        [*forwarded_for("1.1.1.1:7"), ("X-Forwarded-Proto", "https")],
        [("Forwarded", "for=2.2.2.2")],
        [],
        forwarded_for("nonsense"),
    ):
        await raw.send(get(*extra))
        said.append((await raw.response()).body.decode())
    itself = f"http {raw.address[0]}:{raw.address[1]}"
    assert said == ["https 1.1.1.1:7", "http 2.2.2.2:0", itself, itself]
    assert counted(site) == 1
    other = await dial(site.url)
    await other.send(get(*forwarded_for("1.1.1.1")))
    assert (await other.response()).status == 503  # the first connection counts as its first request said
    await raw.upgrade("/ws/cars", extra=forwarded_for("3.3.3.3"))
    await other.eof()
    last = await dial(site.url)
    await last.send(get(*forwarded_for("1.1.1.1")))
    assert (await last.response()).body == b"http 1.1.1.1:0"
    for peer in (raw, other, last):
        peer.close()
    await eventually(lambda: nothing_left(site))


async def test_an_upgrade_on_a_kept_alive_connection_has_its_own_client(serve, dial, wire):
    site = await serve(recorder := Recorder(), http=application_of_client, trusted_proxies=LOCAL)
    raw = await dial(site.url)
    await raw.send(get(*forwarded_for("1.1.1.1")))
    await raw.response()
    await raw.upgrade("/ws/cars", extra=forwarded_for("2.2.2.2"))
    await raw.send(frame(TEXT, b"hi"))
    assert await recorder.until("on_message") == ("hi",)
    assert peers_at(recorder) == [("2.2.2.2", 0)]


async def test_bad_http_of_a_proxy_is_logged_with_its_own_address(serve, dial, caplog):
    site = await serve(Echo(), http=application_of_client, trusted_proxies=LOCAL)
    raw = await dial(site.url)
    await raw.send(get(*forwarded_for("1.1.1.1")))
    await raw.response()
    await raw.send(b"GET / HTTP/1.1\r\nbad field\r\n\r\n")
    assert (await raw.response()).status == 400
    assert caplog.records[-1].remote_address == raw.address
