"""What is told arrives, in order, as long as the backend comes back in time; and nobody waits for it."""

import asyncio
import json
import os
import signal
import socket
import sys

import pytest

from fastws.hooks import Hooks, HookSettings, outbox

from ..lib.support import TIMEOUT, eventually, records_naming
from .conftest import reply, request_of

EVERYTHING = ("online", "offline")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Tries that follow each other faster."""
    monkeypatch.setattr(outbox, "LINGER", 0.01)
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(outbox, "LAST_DELAY", 0.05)


def tell_users(hooks, numbers):
    for number in numbers:
        hooks.tell({"type": "online", "user": number})


def users(backend):
    return [event["user"] for event in backend.events if event["type"] == "online"]


def batches(backend):
    return [post for post in backend.posts if "events" in post.json]


async def test_a_process_says_first_that_it_has_started(backend, hooks):
    teller = hooks(tell=EVERYTHING, node="one")
    teller.start()
    await backend.until(lambda: backend.posts)
    tell_users(teller, [1])
    await backend.until(lambda: len(backend.events) == 2)
    first, second = batches(backend)
    assert first.types == ["started"]
    assert first.json["node"] == second.json["node"] == "one"
    assert first.json["boot"] == second.json["boot"] == first.json["events"][0]["boot"]
    assert [event["seq"] for event in backend.events] == [1, 2]
    another = hooks(tell=EVERYTHING)
    tell_users(another, [1])
    await backend.until(lambda: len(batches(backend)) == 3)
    assert batches(backend)[2].types == ["started", "online"]
    assert batches(backend)[2].json["boot"] > first.json["boot"]
    assert batches(backend)[2].json["node"] == socket.gethostname()


async def test_events_come_in_order_in_batches_of_a_hundred_one_at_a_time(backend, hooks):
    at_once = most = 0

    async def answer(post):
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.002)
        at_once -= 1
        return reply()

    backend.answer = answer
    tell_users(hooks(tell=EVERYTHING), range(1049))
    await backend.until(lambda: len(users(backend)) == 1049)
    assert users(backend) == [*range(1049)]
    assert [len(post.types) for post in batches(backend)] == [100] * 10 + [50]
    assert most == 1


async def test_only_what_is_wanted_is_told(backend, hooks):
    nothing, offline = hooks(tell=()), hooks(tell=("offline",))
    nothing.start()
    tell_users(nothing, [1])
    tell_users(offline, [1])
    offline.tell({"type": "offline", "user": 1})
    await backend.until(lambda: backend.posts)
    await nothing.close()
    assert [post.types for post in backend.posts] == [["started", "offline"]]


async def test_a_batch_is_tried_until_any_2xx_and_keeps_its_id(backend, hooks, caplog):
    teller = hooks(tell=EVERYTHING)
    wrong = [reply(500), reply(404), reply(301, headers="Location: /x\r\n"), None, b"nonsense\r\n\r\n"]
    backend.says(*wrong, reply(202, body=b"thanks"))
    tell_users(teller, [1])
    await backend.until(lambda: len(backend.posts) == 6)
    tell_users(teller, [2])
    await backend.until(lambda: len(users(backend)) == 2)
    posts = batches(backend)
    assert len({post.headers["webhook-id"] for post in posts[:6]}) == 1
    assert posts[6].headers["webhook-id"] != posts[0].headers["webhook-id"]
    assert len({post.body for post in posts[:6]}) == 1
    assert posts[6].types == ["online"]
    assert len(records_naming(caplog, "did not take")) == 5
    await eventually(lambda: teller.figures.requests == {("events", "error"): 5, ("events", "ok"): 2})
    assert teller.figures.dropped == 0


async def test_an_answer_of_any_size_is_fine(backend, hooks):
    backend.says(reply(200, body=b" " * (2 << 20)))
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, [1])
    await eventually(lambda: teller.figures.requests["events", "ok"] == 1)


async def test_nothing_is_lost_while_nobody_is_there(backend, hooks):
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, range(50))
    await backend.until(lambda: users(backend))
    await backend.stop()
    tell_users(teller, range(50, 350))
    await eventually(lambda: teller.figures.requests["events", "error"] >= 3)
    tell_users(teller, range(350, 400))
    await backend.start()
    await backend.until(lambda: len(users(backend)) == 400)
    assert users(backend) == [*range(400)]
    assert [event["seq"] for event in backend.events] == [*range(1, 402)]


async def test_what_never_arrives_is_dropped_counted_and_logged(backend, hooks, caplog, monkeypatch):
    teller = hooks(tell=EVERYTHING, retry_for=1)
    await backend.stop()
    tell_users(teller, range(250))
    await eventually(lambda: teller.figures.dropped == 251)  # and that it had started
    assert records_naming(caplog, "events were dropped")
    await backend.start()
    tell_users(teller, [7])
    await backend.until(lambda: users(backend))
    assert users(backend) == [7]
    assert backend.events[0]["seq"] == 252  # which shows the gap


async def test_so_many_wait_and_the_oldest_go_first(backend, hooks, caplog, monkeypatch):
    monkeypatch.setattr(outbox, "MOST", 120)
    released = asyncio.Event()

    async def answer(post):
        await released.wait()
        return reply()

    backend.answer = answer
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, range(99))
    await backend.until(lambda: backend.posts)
    tell_users(teller, range(99, 299))
    assert teller.figures.dropped == 80  # of 200, as 120 may wait
    released.set()
    await backend.until(lambda: len(users(backend)) == 219)
    assert users(backend) == [*range(99), *range(179, 299)]
    await eventually(lambda: records_naming(caplog, "80 events were dropped"))


async def test_so_many_bytes_wait_too(backend, hooks, monkeypatch):
    monkeypatch.setattr(outbox, "MOST_BYTES", 10_000)
    teller = hooks(tell=EVERYTHING)
    for number in range(20):
        teller.tell({"type": "online", "user": f"{number}" + "x" * 1000})
    assert teller.figures.dropped == 12
    await backend.until(lambda: len(users(backend)) == 9)
    assert users(backend)[0].startswith("11x")
    await eventually(lambda: teller.figures.requests["events", "ok"])
    assert (teller._teller.waiting, teller._teller._outbox._bytes) == (0, 0)


async def test_what_cannot_be_json_costs_itself_only(backend, hooks, caplog):
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, [1, "\ud800", 2])
    await backend.until(lambda: len(users(backend)) == 2)
    assert users(backend) == [1, 2]
    assert teller.figures.dropped == 1
    assert records_naming(caplog, "cannot be sent as JSON")


async def test_a_try_that_hangs_is_given_up(backend, hooks, monkeypatch):
    monkeypatch.setattr(outbox, "PATIENCE", 0.05)
    hanging = asyncio.Event()
    backend.answer = lambda post: hanging.wait()
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, [1])
    await eventually(lambda: teller.figures.requests["events", "timeout"] >= 2)
    backend.answer = backend.yes
    await eventually(lambda: teller.figures.requests["events", "ok"])


async def test_an_ask_does_not_wait_for_what_is_told(backend, hooks):
    async def answer(post):
        if "events" in post.json:
            await asyncio.Event().wait()
        return reply()

    backend.answer = answer
    both = hooks(tell=EVERYTHING, concurrency=1)
    tell_users(both, range(1000))
    await backend.until(lambda: backend.posts)
    await both.connect(request_of())


async def test_a_heartbeat_tells_how_many_are_there(backend, hooks):
    teller = hooks(tell=EVERYTHING, heartbeat=0.05)
    teller.counts = lambda: (3, 5)
    teller.start()
    beats = await backend.until(lambda: [event for event in backend.events if event["type"] == "heartbeat"][:2])
    assert [(beat["users"], beat["connections"]) for beat in beats] == [(3, 5)] * len(beats)
    await teller.close()
    so_far = len(backend.posts)
    await asyncio.sleep(0.12)
    assert len(backend.posts) == so_far


async def test_the_rest_is_delivered_at_a_stop(backend, hooks, monkeypatch):
    monkeypatch.setattr(outbox, "LINGER", 60)
    backend.says(reply(500), reply(500), reply())
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, range(150))
    await teller.close(TIMEOUT)
    assert users(backend) == [*range(150)]
    assert teller.figures.dropped == 0


@pytest.mark.parametrize("how", ["gone", "hanging"])
async def test_a_stop_does_not_wait_forever(backend, hooks, how, caplog):
    teller = hooks(tell=EVERYTHING)
    if how == "gone":
        await backend.stop()
    else:
        backend.answer = lambda post: asyncio.Event().wait()
    tell_users(teller, range(150))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(TIMEOUT):
        await teller.close(0.1)
    assert teller.figures.dropped == 151
    assert records_naming(caplog, "events were dropped")


async def test_what_is_told_during_a_stop_comes_last(backend, hooks):
    released = asyncio.Event()

    async def answer(post):
        await released.wait()
        return reply()

    backend.answer = answer
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, range(150))
    await backend.until(lambda: backend.posts)
    stop = asyncio.ensure_future(teller.close(TIMEOUT))
    await asyncio.sleep(0)
    tell_users(teller, range(150, 200))
    released.set()
    await stop
    assert users(backend) == [*range(200)]
    assert [post.types[0] for post in batches(backend)] == ["started", "online", "online"]  # by one task


async def test_after_a_stop_it_can_go_on(backend, hooks):
    teller = hooks(tell=EVERYTHING)
    tell_users(teller, [1])
    await teller.close()
    await teller.close()
    tell_users(teller, [2])
    await backend.until(lambda: len(users(backend)) == 2)
    assert [event["type"] for event in backend.events] == ["started", "online", "online"]


def test_a_loop_that_ends_takes_everything_along(unused_tcp_port):
    """And warns of nothing that was left open."""

    async def run():
        teller = Hooks(HookSettings(url=f"http://127.0.0.1:{unused_tcp_port}/", tell=EVERYTHING))
        tell_users(teller, [1])
        await eventually(lambda: teller.figures.requests["events", "error"])
        return teller

    assert asyncio.run(run()).figures.dropped == 2


SCRIPT = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "ab", 0) as file:
            file.write(body + b"\\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *arguments):
        pass

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


async def test_a_killed_backend_loses_nothing(unused_tcp_port, tmp_path):
    """A process of its own, killed -9 again and again in the middle of its work."""
    log = tmp_path / "log"
    hooks = Hooks(HookSettings(url=f"http://127.0.0.1:{unused_tcp_port}/", tell=EVERYTHING, heartbeat=0))
    total = 0
    for _ in range(4):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SCRIPT, str(unused_tcp_port), str(log))
        for _ in range(20):
            tell_users(hooks, range(total, total + 30))
            total += 30
            await asyncio.sleep(0.005)
        await eventually(lambda: hooks.figures.requests["events", "ok"] and log.exists())
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        tell_users(hooks, range(total, total + 30))
        total += 30
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", SCRIPT, str(unused_tcp_port), str(log))
    await hooks.close(TIMEOUT)
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    events = [event for line in log.read_text().splitlines() for event in json.loads(line)["events"]]
    once = {event["seq"]: event for event in events}
    assert [event.get("user") for event in once.values()] == [None, *range(total)]
    assert [*once] == sorted(once)
    assert hooks.figures.dropped == 0
