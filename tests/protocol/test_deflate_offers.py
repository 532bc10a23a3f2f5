"""permessage-deflate: which offers are accepted (RFC 7692 5 and 7.1), and what the handshake says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from fastws import Listener, Server
from fastws._core import negotiate_deflate
from fastws.testing import running

from ..lib.deflate import OFFER, compressing, deflated_frame, upgrade
from ..lib.raw import TEXT, Raw, frame
from ..lib.support import Echo

AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
JSON = b'{"bids":[' + b"[101.25,300]," * 90 + b"[0,0]]}"

ACCEPTED = {
    OFFER: (15, AGREED),
    f"{OFFER}; server_no_context_takeover": (15, AGREED),
    f"{OFFER}; client_no_context_takeover": (15, AGREED),
    f"{OFFER};client_max_window_bits": (15, AGREED),
    f"{OFFER}; client_max_window_bits=8": (15, AGREED),
    f"{OFFER}; client_max_window_bits=15": (15, AGREED),
    **{f"{OFFER}; server_max_window_bits={n}": (n, f"{AGREED}; server_max_window_bits={n}") for n in range(9, 16)},
    f'{OFFER}; server_max_window_bits="10"': (10, f"{AGREED}; server_max_window_bits=10"),
    f'{OFFER}; server_max_window_bits="1\\0"': (10, f"{AGREED}; server_max_window_bits=10"),
    f"{OFFER} ; server_max_window_bits = 9 ;\tclient_max_window_bits": (9, f"{AGREED}; server_max_window_bits=9"),
    f"x-webkit-deflate-frame, {OFFER}": (15, AGREED),
    f"{OFFER}; server_max_window_bits=8, {OFFER}": (15, AGREED),
    f"{OFFER}; what, {OFFER}; server_max_window_bits=11, {OFFER}": (11, f"{AGREED}; server_max_window_bits=11"),
    ", ".join([OFFER] * 16): (15, AGREED),
}
DECLINED = [
    "",
    "permessage-bzip2",
    "x-webkit-deflate-frame",
    f"{OFFER}; server_max_window_bits=8",
    f"{OFFER}; server_max_window_bits",
    *(f"{OFFER}; server_max_window_bits={n}" for n in ("7", "16", "09", "+9", "1e1", "9.0", "100", '"8"', "x")),
    *(f"{OFFER}; client_max_window_bits={n}" for n in ("7", "16", "09", "+9", "x", '"16"')),
    f"{OFFER}; server_no_context_takeover=1",
    f"{OFFER}; client_no_context_takeover=true",
    f'{OFFER}; client_no_context_takeover="x"',
    f"{OFFER}; what",
    f"{OFFER}; what=1",
    f"{OFFER}; client_no_context_takeover; client_no_context_takeover",
    f"{OFFER}; server_max_window_bits=10; server_max_window_bits=10",
    ", ".join([OFFER] * 17),
]


@pytest.mark.parametrize("offer", ACCEPTED)
def test_an_offer_that_can_be_kept_is_accepted(offer):
    assert negotiate_deflate(offer) == ACCEPTED[offer]


@pytest.mark.parametrize("offer", DECLINED)
def test_any_other_offer_is_declined(offer):
    assert negotiate_deflate(offer) == (0, "")


@given(
    server=st.booleans(),
    client=st.booleans(),
    server_bits=st.none() | st.integers(9, 15),
    client_bits=st.sampled_from([None, True]) | st.integers(9, 15),
)
def test_what_is_agreed_on_satisfies_whoever_offered(server, client, server_bits, client_bits):
    """Here websockets, which refuses an answer that does not fit its offer."""
    factory = ClientPerMessageDeflateFactory(server, client, server_bits, client_bits)
    _, agreed = negotiate_deflate(build_extension([(OFFER, factory.get_request_params())]))
    ((name, parameters),) = parse_extension(agreed)
    assert name == OFFER
    extension = factory.process_response_params(parameters, [])
    assert (extension.remote_no_context_takeover, extension.local_no_context_takeover) == (True, True)
    assert extension.remote_max_window_bits == (server_bits or 15)


@given(st.text(max_size=60))
def test_any_text_is_an_offer_or_none(text):
    assert negotiate_deflate(text) == (0, "")


@pytest.mark.parametrize("offer", DECLINED)
async def test_a_handshake_goes_on_without(serve, offer):
    site = await serve(Echo(), compression="shared")
    raw = await Raw.open(site.url)
    await raw.send(upgrade("/ws/cars", offer))
    response = await raw.response()
    assert (response.status, response["Sec-WebSocket-Extensions"]) == (101, None)
    await raw.send(frame(TEXT, JSON))
    assert await raw.text() == JSON.decode()
    await raw.send(deflated_frame(JSON))
    assert await raw.close_code() == 1002
    raw.close()


async def test_by_default_nothing_is_agreed_on(serve):
    site = await serve(Echo())
    raw = await Raw.open(site.url)
    await raw.send(upgrade("/ws/cars"))
    assert (await raw.response())["Sec-WebSocket-Extensions"] is None
    assert [ws.compression for ws in site.manager.connections.values()] == [False]
    raw.close()


async def test_each_endpoint_has_its_own_say():
    server = Server(port=0, compression="shared", compression_threshold=0)
    server.endpoint("/on", Echo())
    server.endpoint("/off", Echo(), compression="off")
    async with running(server) as url:
        raw = await compressing(url, "/on")
        await raw.send(frame(TEXT, b"x" * 100))
        assert (await raw.frame()).rsv == 4
        raw.close()
        raw = await Raw.open(url)
        await raw.send(upgrade("/off"))
        assert (await raw.response())["Sec-WebSocket-Extensions"] is None
        raw.close()


async def test_a_listener_may_not_agree_on_extensions(serve):
    class Meddling(Listener):
        def on_handshake(self, request):
            request.response_headers["sec-websocket-extensions"] = OFFER

    raw = await Raw.open((await serve(Meddling())).url)
    await raw.send(upgrade("/ws/cars"))
    assert (await raw.response()).status == 500
    raw.close()
