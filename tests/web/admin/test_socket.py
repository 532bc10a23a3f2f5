"""The status page's WebSocket: who gets in, what it tells, and what it makes of rubbish."""

import asyncio
import logging
import re
import time
from dataclasses import replace

import aiohttp
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from fastws import ConfigurationError, Listener
from fastws.command.settings import load
from fastws.standalone import create_server, reconfigure
from tests.lib.support import eventually
from tests.web.admin.site import KEY, NARROW, ORIGIN, READER, SENDER, settings


async def refused(site, key):
    """The code and the reason that a page with this key is closed with."""
    status = await site.dial()
    await status.say({"key": key})
    code, reason, told = await status.ended()
    assert told == []
    return code, reason


async def test_a_page_with_a_key_that_may_read_is_told_every_second(site):
    status = await site.status(READER)
    welcome = status.welcome
    assert (welcome["key"], welcome["allow"], welcome["readonly"]) == ("reader", ["read"], False)
    first = await status.hear("now")
    second = await status.hear("now")
    assert 0.5 < second["time"] - first["time"] < 5
    assert {each["path"] for each in second["endpoints"]} == {"/ws", "/raw/{channel}"}


async def test_nothing_is_sent_before_the_key(site):
    status = await site.dial()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(status.ws.recv(), 1.5)
    assert (await site.status()).welcome["type"] == "welcome"


async def test_whoever_says_no_key_is_closed(site, monkeypatch):
    monkeypatch.setattr("fastws.web.admin.SILENCE", 0.05)
    status = await site.dial()
    assert await status.ended() == (4408, "no key came", [])


@pytest.mark.parametrize(
    ("key", "code", "sentence"),
    [("wrong", 4401, "this key is not known"), ("", 4401, "a key is needed"), (SENDER, 4403, "may not read")],
)
async def test_any_other_key_is_refused_with_a_reason_that_the_log_has(site, caplog, key, code, sentence):
    with caplog.at_level(logging.WARNING, "fastws.server"):
        found, reason = await refused(site, key)
    assert found == code
    assert sentence in reason
    (record,) = [record for record in caplog.records if hasattr(record, "request_id")]
    assert record.request_id in reason
    assert record.path == "/admin/ws"
    assert not key or key not in caplog.text


async def test_wrong_keys_are_throttled_here_and_at_the_api_alike(site):
    assert [(await refused(site, f"wrong {n}"))[0] for n in range(6)] == [4401] * 5 + [4429]
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{site.server.port}/api/info"
        async with session.get(url, headers={"X-API-Key": "wrong"}) as answer:
            assert answer.status == 429
    assert (await site.status()).welcome["key"] == "operator"  # a right one passes all the same


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "null",
        "[]",
        '"key"',
        "{}",
        '{"key": 1}',
        '{"key": null}',
        '{"key": "a", "more": 1}',
        '{"key": "\\ud800"}',
        b"\xff\xfe",
        "[" * 4000,
    ],
)
async def test_rubbish_instead_of_a_key_is_closed_and_harms_nobody(site, frame):
    beside = await site.status()
    status = await site.dial()
    await status.ws.send(frame)
    code, _, told = await status.ended()
    assert code in (4400, 4401)
    assert told == []
    await beside.hear("now")


@pytest.mark.parametrize(
    "frame",
    ["{", "{}", '{"watch": 1}', '{"watch": "everything"}', '{"watch": "users", "of": 1}', '{"key": "a"}', b"\x00\xff"],
)
async def test_rubbish_after_the_key_is_closed(site, frame):
    status = await site.status()
    await status.ws.send(frame)
    assert (await status.ended())[:2] == (4400, "this is not a frame of the status page")
    await eventually(lambda: site.server.endpoints["/admin/ws"].connection_count == 0)


async def test_a_frame_that_is_too_large_is_closed(site):
    status = await site.dial()
    await status.ws.send('{"key": "' + "a" * 5000 + '"}')
    assert (await status.ended())[0] == 1009


async def test_the_page_itself_may_come_from_any_origin_but_others_may_not(site):
    async with connect(site.url + "/admin/ws", origin="https://elsewhere.example") as ws:
        await ws.send(f'{{"key": "{KEY}"}}')
        assert "welcome" in await ws.recv()
    with pytest.raises(InvalidStatus, match="403"):
        await connect(site.url + "/ws", origin="https://elsewhere.example")


async def test_totals_are_true_and_the_page_is_not_among_them(site):
    for n in range(5):
        await site.join("cars", user=f"u{n % 3}")
    talker = await site.join("bikes")
    status, _ = await site.status(), await site.status()
    now = await status.hear("now", lambda frame: frame["pages"] == 2)
    assert (now["connections"], now["channels"], now["users"]) == (6, 2, 3)
    for _ in range(7):
        await talker.send("x")
    now = await status.hear("now", lambda frame: frame["received"])
    assert now["received"] == pytest.approx(7, rel=0.5)
    assert now["delivered"] == pytest.approx(7, rel=0.5)
    assert (now["dropped"], now["memory"] > 1 << 20) == (0, True)


async def test_handshakes_are_counted_by_status_and_its_own_are_not(site):
    await site.status()
    await site.join("cars")
    for _ in range(2):
        with pytest.raises(InvalidStatus, match="403"):
            await connect(site.url + "/ws")
    status = await site.status()
    total = {}
    for _ in range(2):
        await status.hear("now")
    for sample in (await site.status()).welcome["history"]:
        for name, count in sample[-1].items():
            total[name] = total.get(name, 0) + count
    assert total == {"101": 1, "403": 2}


async def test_a_blocked_loop_shows_as_lag(site):
    status = await site.status()
    await status.hear("now")
    asyncio.get_running_loop().call_soon(time.sleep, 0.3)
    now = await status.hear("now", lambda frame: frame["lag"] > 100)
    assert 200 < now["lag"] < 5000


async def test_what_is_watched_is_told_and_nothing_else(site):
    for n in range(3):
        await site.join("shop.1", user=f"ann{n}")
    await site.join("cars", user="bob")
    status = await site.status()
    await status.say({"watch": "channels", "of": "shop."})
    assert (await status.hear("channels"))["entries"] == [["shop.1", 3]]
    await status.say({"watch": "users", "of": ""})
    found = await status.hear("users")
    assert (found["total"], found["entries"][-1]) == (4, ["bob", 1])
    await status.say({"watch": "channel", "of": "cars"})
    found = await status.hear("channel")
    assert (found["total"], found["connections"][0]["user"]) == (1, "bob")
    await status.say({"watch": ""})
    await status.hear("now")
    heard = [await asyncio.wait_for(status.ws.recv(), 5) for _ in range(4)]
    assert all('"type":"now"' in text for text in heard)


async def test_a_key_for_some_channels_sees_no_others(site):
    await site.join("cars")
    await site.join("shop.1")
    status = await site.status(NARROW)
    await status.say({"watch": "channels", "of": ""})
    assert (await status.hear("channels"))["entries"] == [["shop.1", 1]]
    await status.say({"watch": "channel", "of": "cars"})
    await status.hear("now")
    await status.say({"watch": "channel", "of": "shop.1"})
    assert (await status.hear("channel"))["of"] == "shop.1"


async def test_the_configuration_is_told_without_its_secrets(site):
    status = await site.status(READER)
    await status.say({"watch": "config"})
    entries = {name: (value, source) for name, value, source in (await status.hear("config"))["entries"]}
    assert entries["port"][0] == "0"
    assert entries["port"][1].endswith("fastws.toml:3")
    assert entries["api.keys[0].name"][0] == '"operator"'
    assert entries["max_backlog"][1] == "default"
    assert not [value for value, _ in entries.values() if KEY in value or READER in value]


async def test_other_keys_and_rules_reach_an_open_page(site, tmp_path):
    status = await site.status()
    text = (tmp_path / "fastws.toml").read_text()
    (tmp_path / "fastws.toml").write_text(text.replace(KEY, "another-key-0123456789").replace('"*"', '"news"'))
    reconfigure(site.server, load(tmp_path / "fastws.toml", {}, {}))
    assert (await status.ended())[0] == 1012
    assert (await refused(site, KEY))[0] == 4401
    status = await site.status("another-key-0123456789")
    await status.say({"watch": "config"})
    entries = {name: value for name, value, _ in (await status.hear("config"))["entries"]}
    assert entries["channels[0].pattern"] == '"news"'


async def test_readonly_allows_nothing_but_reading_and_refuses_what_the_page_asks(make_site):
    site = await make_site(admin="readonly = true")
    status = await site.status()
    assert (status.welcome["readonly"], status.welcome["allow"]) == (True, ["read"])
    await site.join("cars", user="ann")
    async with aiohttp.ClientSession() as session:
        for path, body in [
            ("/close", {"channel": "cars"}),
            ("/send", {"users": "ann", "text": "x"}),
            ("/broadcast", {"channel": "cars", "text": "x"}),
            ("/subscribe", {"users": "ann", "channel": "b"}),
            ("/batch", {"commands": []}),
        ]:
            url, headers = f"http://127.0.0.1:{site.server.port}/api{path}", {"X-API-Key": KEY, "X-Fastws-Page": "1"}
            async with session.post(url, json=body, headers=headers) as answer:
                assert (answer.status, "read-only" in await answer.text()) == (403, True)
            async with session.post(url, json=body, headers={"X-API-Key": KEY}) as answer:
                assert answer.status == 200  # the key may, by other means
        headers = {"X-API-Key": KEY, "X-Fastws-Page": "1"}
        async with session.get(f"http://127.0.0.1:{site.server.port}/api/channels", headers=headers) as answer:
            assert answer.status == 200


async def test_the_page_is_on_the_port_of_the_api(make_site, unused_tcp_port):
    site = await make_site(api=f'listen = "127.0.0.1:{unused_tcp_port}"')
    await site.join("cars", user="ann")
    status = await site.status(port=unused_tcp_port)
    assert (await status.hear("now"))["connections"] == 1
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{unused_tcp_port}/admin") as answer:
            assert answer.status == 200
        async with session.get(site.page) as answer:
            assert answer.status == 404


async def test_the_page_says_what_may_be_loaded_and_is_not_sent_twice(site):
    async with aiohttp.ClientSession() as session:
        async with session.get(site.page) as answer:
            policy = answer.headers["Content-Security-Policy"]
            etag, text = answer.headers["ETag"], await answer.text()
        async with session.get(site.page, headers={"If-None-Match": etag}) as answer:
            assert answer.status == 304
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert f"connect-src 'self' ws://127.0.0.1:{site.server.port} " in policy
    assert set(re.findall(r"https?://[\w.]+", text)) == {"http://www.w3.org"}  # the namespace of SVG


async def test_a_host_that_is_none_gets_no_place_in_the_policy(site):
    headers = {"Host": "a.example;script-src *"}
    async with aiohttp.ClientSession() as session, session.get(site.page, headers=headers) as answer:
        assert answer.status == 400 or "script-src *" not in answer.headers["Content-Security-Policy"]


def test_without_a_key_there_is_no_page(tmp_path):
    found = settings(tmp_path)
    with pytest.raises(ConfigurationError, match=r"\[admin\] asks for a key"):
        create_server(replace(found, api=None))


@pytest.mark.parametrize("path", ["admin", "/", "/admin/", "/{name}"])
def test_a_path_that_cannot_work_is_named(tmp_path, path):
    with pytest.raises(ConfigurationError, match="path="):
        settings(tmp_path, admin=f'path = "{path}"')


async def test_a_number_that_is_a_user_is_found_by_its_text(site):
    class Numbered(Listener):
        def on_handshake(self, request):
            request.user = 17

    site.server.endpoint("/numbers", Numbered())
    async with connect(site.url + "/numbers", origin=ORIGIN), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{site.server.port}/api/users/17"
        async with session.get(url, headers={"X-API-Key": KEY}) as answer:
            assert [each["user"] for each in (await answer.json())["connections"]] == [17]
