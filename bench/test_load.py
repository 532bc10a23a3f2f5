"""Tests of the load generator: `pytest bench`."""

import contextlib
import math
import os
import random
import ssl
import threading

import pytest
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.sync.server import serve

from bench.build import build

build()

from bench.load import Histogram, Load  # noqa: E402 (built just now)
from bench.scenarios.compressed import COMPRESSING_REQUEST, market_books  # noqa: E402
from bench.scenarios.idle import browsers  # noqa: E402
from tests.lib.certificates import Authority  # noqa: E402

pytestmark = pytest.mark.timeout(30)


@contextlib.contextmanager
def serving(handle, **options):
    """Run a server on a thread, and yield its port."""
    with serve(handle, "127.0.0.1", 0, compression=None, **options) as running:
        threading.Thread(target=running.serve_forever).start()
        yield running.socket.getsockname()[1]
        running.shutdown()


def server(answer):
    """`answer(number, message)` says what goes back to a client for its message of that number."""

    def handle(connection):
        for number, message in enumerate(connection):
            for reply in answer(number, message):
                connection.send(reply)

    return serving(handle)


def broadcaster(count, left_out=()):
    """Sends messages of `count` clients to all of them, except message 20 to those whose paths are left out."""
    members, complete = [], threading.Barrier(count)

    def handle(connection):
        members.append(connection)
        complete.wait()
        for number, message in enumerate(connection):
            for member in members:
                if number != 20 or member.request.path not in left_out:
                    member.send(message)

    return serving(handle)


def errors_of(answer, *, window=8, size=64, threads=1):
    """Returns the faults that one client finds; with several threads not one of the first, which sends first."""
    with server(answer) as port, Load(port, threads) as load:
        client = load.add_clients(["/"] * threads)[-1:]
        load.connect()
        load.add_stream(client, client, size=size, window=window)
        figures = load.run(0.2)
        load.settle(0.5)
        return load.errors, figures


both = pytest.mark.parametrize("threads", [1, 2])


@both
@pytest.mark.parametrize("size", [8, 64, 125, 126, 65_535, 65_536, 300_000])
def test_an_honest_echo_has_no_errors_at_any_length(size, threads):
    errors, figures = errors_of(lambda number, message: [message], size=size, threads=threads)
    assert errors == {}
    assert figures["deliveries"] > 10


def compressed(answer, *, has_window, window=8, size=1_024):
    """The same with permessage-deflate; returns the bytes of a delivery, too."""

    def handle(connection):
        for number, message in enumerate(connection):
            for reply in answer(number, message):
                connection.send(reply)

    extension = ServerPerMessageDeflateFactory(server_no_context_takeover=not has_window)
    with serving(handle, extensions=[extension]) as port, Load(port, threads=1) as load:
        client = load.add_clients(["/"], request=COMPRESSING_REQUEST)
        load.connect()
        assert load.compressing == 1
        load.add_stream(client, client, size=size, window=window, bodies=market_books(size - 8))
        figures = load.run(0.2)
        load.settle(0.5)
        return load.errors, figures


windows = pytest.mark.parametrize("has_window", [False, True])


@windows
@pytest.mark.parametrize("size", [256, 1_024, 70_000])
def test_compressed_messages_are_expanded(has_window, size):
    errors, figures = compressed(lambda number, message: [message], has_window=has_window, size=size)
    assert errors == {}
    assert figures["deliveries"] > 10
    assert figures["bytes_per_delivery"] < 0.6 * size + 20


@windows
def test_a_byte_that_is_wrong_in_a_compressed_message_is_found(has_window):
    def answer(number, message):
        return [message[:-1] + b"?" if number == 20 else message]

    errors, _ = compressed(answer, has_window=has_window)
    assert errors["malformed"] == 1


def test_what_others_have_been_sent_is_recognised():
    members, complete = [], threading.Barrier(3)

    def handle(connection):
        members.append(connection)
        complete.wait()
        for number, message in enumerate(connection):
            for member in members:
                member.send(message[:-1] + b"?" if number == 20 and member is members[-1] else message)

    extension = ServerPerMessageDeflateFactory(server_no_context_takeover=True)
    with serving(handle, extensions=[extension]) as port, Load(port, threads=1) as load:
        clients = load.add_clients(["/"] * 3, request=COMPRESSING_REQUEST)
        load.connect()
        load.add_stream(clients[:1], clients, size=1_024, window=8, bodies=market_books(1_016))
        load.run(0.3)
        load.settle(0.5)
        assert load.deliveries > 60
        assert load.errors["malformed"] == 1


@both
def test_over_tls_it_is_the_same(tmp_path, threads):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*Authority(tmp_path).issue("bench"))

    def handle(connection):
        for message in connection:
            connection.send(message)

    with serving(handle, ssl=context) as port, Load(port, threads, tls=True) as load:
        clients = load.add_clients(["/"] * 4)
        load.connect()
        for client in clients:
            load.add_stream([client], [client], size=50_000, window=4)
        assert load.run(0.3)["deliveries"] > 10
        assert load.settle(5)
        assert load.errors == {}


@both
def test_what_is_lost_is_counted(threads):
    errors, _ = errors_of(lambda number, message: [] if number == 20 else [message], threads=threads)
    assert errors == {"lost": 1}


@both
def test_what_comes_twice_is_counted(threads):
    errors, _ = errors_of(lambda number, message: [message] * (2 if number == 20 else 1), threads=threads)
    assert errors == {"repeated": 1}


@both
def test_what_is_out_of_order_is_counted(threads):
    held = []

    def swap(number, message):
        if number == 20:
            held.append(message)
            return []
        return [message, held.pop()] if held else [message]

    errors, _ = errors_of(swap, threads=threads)
    assert errors == {"lost": 1, "repeated": 1}


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_message_is_done_when_the_receivers_of_all_threads_have_it(threads):
    with broadcaster(5) as port, Load(port, threads) as load:
        clients = load.add_clients(["/"] * 5)
        load.connect()
        load.add_stream(clients[:1], clients, window=8)
        figures = load.run(0.3)
        assert load.settle(5)
        assert load.errors == {}
        assert load.deliveries == 5 * load.messages
        assert load.messages >= figures["messages"] > 20


def test_each_client_sends_a_browsers_head_of_its_own():
    seen = []

    def handle(connection):
        seen.append(connection.request)
        connection.recv()

    with serving(handle) as port, Load(port) as load:
        load.add_clients(["/a", "/b", "/c"], request=browsers())
        load.connect()
        assert [len(head) in range(670, 721) for head in load.requests] == [True] * 3
    assert sorted(request.path for request in seen) == ["/a", "/b", "/c"]
    assert {request.headers["Host"] for request in seen} == {f"127.0.0.1:{port}"}
    assert len({request.headers["Cookie"] for request in seen}) == 3


@pytest.mark.parametrize("deaf", [0, 1])
def test_what_the_receivers_of_one_thread_miss_is_counted(deaf):
    paths = [f"/{i % 2}" for i in range(5)]
    missing = paths.count(f"/{deaf}")
    with broadcaster(5, left_out={f"/{deaf}"}) as port, Load(port, threads=2) as load:
        clients = load.add_clients(paths)
        load.connect()
        load.add_stream(clients[:1], clients, window=8)
        load.run(0.3)
        assert not load.settle(0.5)  # that message is never done
        assert load.errors == {"lost": missing}
        assert load.deliveries == 5 * load.messages + 5 - missing


def test_messages_roam_over_the_streams_of_both_threads():
    with server(lambda number, message: [message]) as port, Load(port, threads=2) as load:
        clients = load.add_clients(["/"] * 8)
        load.connect()
        for i in range(8):
            load.add_stream(clients[i : i + 1], clients[i : i + 1])
        assert load.run(0.3, roaming=5)["messages"] > 20
        assert load.settle(5)
        assert load.errors == {}


def test_there_is_one_thread_per_core_unless_told():
    assert len(Load(0).lanes) == len(os.sched_getaffinity(0))


def test_the_caller_may_use_the_same_cores_as_before():
    cores = os.sched_getaffinity(0)
    Load(0, threads=2).run(0.01)
    assert os.sched_getaffinity(0) == cores


def test_a_message_of_the_wrong_length_is_counted():
    errors, _ = errors_of(lambda number, message: [message + b"x" if number == 20 else message])
    assert errors["malformed"] == 1


def test_text_for_binary_is_counted():
    errors, _ = errors_of(lambda number, message: ["text of twelve"] if number == 20 else [message])
    assert errors["malformed"] == 1


def test_an_open_loop_keeps_its_rate():
    with server(lambda number, message: [message]) as port, Load(port, threads=1) as load:
        client = load.add_clients(["/"])
        load.connect()
        load.add_stream(client, client, rate=200)
        assert load.run(1)["messages"] == pytest.approx(200, abs=20)


def test_latency_in_an_open_loop_counts_from_when_a_message_was_due():
    pause = threading.Event()

    def stall_once(number, message):
        if number == 20:
            pause.wait(0.3)
        return [message]

    with server(stall_once) as port, Load(port, threads=1) as load:
        client = load.add_clients(["/"])
        load.connect()
        load.add_stream(client, client, rate=100)
        figures = load.run(1)
    assert figures["max_us"] > 250_000
    assert figures["p50_us"] < 100_000


@pytest.mark.parametrize("percent", [1, 50, 90, 99, 99.9, 100])
def test_percentiles_are_within_the_buckets_precision(percent):
    generator, histogram = random.Random(7), Histogram()
    values = sorted(int(generator.lognormvariate(12, 2)) for _ in range(20_000))
    for value in values:
        histogram.record(value)
    exact = values[math.ceil(len(values) * percent / 100) - 1]
    assert histogram.percentile(percent) == pytest.approx(exact, rel=0.016, abs=1)
