"""Other protocols, damaged handshakes and floods: an answer or a hang-up, one log line, and nobody else harmed."""

import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .raw import BINARY, CONTINUATION, KEY, PING, PONG, TEXT, Raw, close_frame, frame, request
from .support import Echo, needs_proc, resident

FOREIGN = {
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + bytes(range(240)),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"EHLO example.org\r\n",
    "SOCKS": b"\x05\x01\x00",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "PostgreSQL": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "the PROXY protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    "HTTP/0.9": b"GET /ws/cars\r\n\r\n",
    "nothing but line ends": b"\r\n" * 100,
    "zeros": bytes(1000),
    "a frame": frame(TEXT, b"hello"),
    "a response": b"HTTP/1.1 200 OK\r\n\r\n",
}

CONTRADICTIONS = {
    "a body": ([("Content-Length", "5")], b"hello"),
    "a chunked body": ([("Transfer-Encoding", "chunked")], b"0\r\n\r\n"),
    "two lengths": ([("Content-Length", "0"), ("Content-Length", "5")], b"hello"),
    "a length that is none": ([("Content-Length", "-1")], b""),
    "length and chunks": ([("Content-Length", "5"), ("Transfer-Encoding", "chunked")], b"0\r\n\r\n"),
}


@pytest.fixture
async def site(serve):
    return await serve(Echo(), handshake_timeout=1)


@pytest.fixture
async def witness(site, join):
    """Afterwards, another connection still works."""
    client = await join(f"{site.url}/ws/cars")
    yield
    await client.send("fine")
    assert await client.receive() == "fine"


def refused(answer):
    """Whether it is an error of ours, or a hang-up without a word."""
    return answer == b"" or (answer.startswith(b"HTTP/1.1 4") and b'{"error":{' in answer)


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("name", FOREIGN)
async def test_another_protocol_is_refused(site, dial, caplog, name):
    caplog.set_level(logging.INFO, logger="fastws")
    raw = await dial(site.url)
    await raw.send(FOREIGN[name])
    raw.half_close()
    assert refused(await raw.eof())
    assert len([record for record in caplog.records if record.name.startswith("fastws")]) <= 1


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("name", CONTRADICTIONS)
async def test_an_upgrade_with_a_body_is_refused(site, dial, name):
    extra, body = CONTRADICTIONS[name]
    raw = await dial(site.url)
    await raw.send(request("/ws/cars", extra=extra) + body)
    assert (await raw.response()).status == 400
    await raw.eof()


@pytest.mark.usefixtures("witness")
async def test_a_second_request_behind_the_upgrade_is_no_request(site, dial):
    raw = await dial(site.url)
    await raw.send(request("/ws/cars") + request("/ws/bikes"))
    assert (await raw.response()).status == 101
    assert await raw.close_code() == 1002
    assert set(site.manager.channels) == {"cars"}


@pytest.mark.usefixtures("witness")
async def test_a_second_request_behind_a_refused_one_is_not_answered(site, dial):
    raw = await dial(site.url)
    await raw.send(request("/nowhere") + request("/ws/cars"))
    assert (await raw.eof()).count(b"HTTP/1.1") == 1


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        request("/ws/cars", extra=[(f"X-{number}", "x") for number in range(10_000)]),
        b"GET /ws/cars HTTP/1.1\r\n" + b"X" * (1 << 20),
    ],
    ids=["a request line of 1 MiB", "10,000 fields", "a name of 1 MiB"],
)
async def test_a_head_without_end_is_431_and_costs_little(site, dial, data):
    raw = await dial(site.url)
    try:
        await raw.send(data)
    except ConnectionError:
        return  # it had heard enough
    assert (await raw.response()).status == 431


@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("header", ["Sec-WebSocket-Protocol", "Origin", "Cookie", "X-Any"])
async def test_no_header_comes_back_as_a_header(site, dial, header):
    raw = await dial(site.url)
    await raw.send(request("/ws/cars?x=%0d%0aX-Evil:1", extra=[(header, "a\rX-Evil: 1")]))
    assert b"\r\nX-Evil" not in await raw.eof()


damages = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 3), st.binary(max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(damages=damages, cut=st.integers(0, 400))
async def test_a_damaged_handshake_is_accepted_or_refused_and_nothing_else(site, damages, cut):
    data = request("/ws/cars", extra=[("Origin", "http://example.org"), ("Cookie", "a=1; b=2")])
    for place, dropped, added in damages:
        place %= len(data)
        data = data[:place] + added + data[place + dropped :]
    raw = await Raw.open(site.url)
    await raw.send(data[:cut], pieces=[data[cut:], frame(TEXT, b"hi") + close_frame()])
    raw.half_close()
    answer = await raw.eof()
    raw.close()
    if answer.startswith(b"HTTP/1.1 101 "):
        # What the damage left behind may be the start of a frame, so the echo need not be there.
        assert b"Sec-WebSocket-Accept: " in answer
    else:
        assert refused(answer)


FLOODS = {
    "pings": [frame(PING, b"x" * 125) * 1000],
    "pongs": [frame(PONG, b"x" * 125) * 1000],
    "empty fragments": [frame(BINARY, b"x", fin=False), frame(CONTINUATION, b"", fin=False) * 10_000],
    "empty messages": [frame(BINARY) * 10_000],
}


@needs_proc
@pytest.mark.usefixtures("witness")
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_costs_bounded_memory(site, dial, kind):
    *first, flood = FLOODS[kind]
    raw = await dial(site.url, "/ws/cars")
    await raw.send(b"".join(first))
    before = resident()
    for _ in range(40):
        await raw.send(flood + frame(PING, b"so far"))
        while (await raw.frame()).payload != b"so far":
            pass
    assert resident() - before < 8 << 20


async def test_the_same_key_twice_is_two_connections(site, dial):
    one, other = await dial(site.url, "/ws/cars"), await dial(site.url, "/ws/cars")
    await one.send(frame(TEXT, KEY.encode()))
    await other.send(frame(TEXT, b"other"))
    assert (await one.text(), await other.text()) == (KEY, "other")
