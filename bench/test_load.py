"""Whether the load generator can be trusted: `pytest bench`."""

import contextlib
import math
import random
import threading

import pytest
from websockets.sync.server import serve

from bench.build import build

build()

from bench.load import Histogram, Load  # noqa: E402 (built just now)

pytestmark = pytest.mark.timeout(30)


@contextlib.contextmanager
def server(answer):
    """A server on a thread; `answer(number, message)` says what goes back for the message of that number."""

    def handle(connection):
        for number, message in enumerate(connection):
            for reply in answer(number, message):
                connection.send(reply)

    with serve(handle, "127.0.0.1", 0, compression=None) as running:
        threading.Thread(target=running.serve_forever).start()
        yield running.socket.getsockname()[1]
        running.shutdown()


def errors_of(answer, *, window=8, size=64):
    with server(answer) as port, Load(port) as load:
        client = load.add_clients(["/"])
        load.connect()
        load.add_stream(client, client, size=size, window=window)
        figures = load.run(0.2)
        load.settle(0.5)
        return load.errors, figures


@pytest.mark.parametrize("size", [8, 64, 125, 126, 65_535, 65_536, 300_000])
def test_an_honest_echo_has_no_errors_at_any_length(size):
    errors, figures = errors_of(lambda number, message: [message], size=size)
    assert errors == {}
    assert figures["deliveries"] > 10


def test_what_is_lost_is_counted():
    errors, _ = errors_of(lambda number, message: [] if number == 20 else [message])
    assert errors == {"lost": 1}


def test_what_comes_twice_is_counted():
    errors, _ = errors_of(lambda number, message: [message] * (2 if number == 20 else 1))
    assert errors == {"repeated": 1}


def test_what_is_out_of_order_is_counted():
    held = []

    def swap(number, message):
        if number == 20:
            held.append(message)
            return []
        return [message, held.pop()] if held else [message]

    errors, _ = errors_of(swap)
    assert errors == {"lost": 1, "repeated": 1}


def test_a_message_of_the_wrong_length_is_counted():
    errors, _ = errors_of(lambda number, message: [message + b"x" if number == 20 else message])
    assert errors["malformed"] == 1


def test_text_for_binary_is_counted():
    errors, _ = errors_of(lambda number, message: ["text of twelve"] if number == 20 else [message])
    assert errors["malformed"] == 1


def test_an_open_loop_keeps_its_rate():
    with server(lambda number, message: [message]) as port, Load(port) as load:
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

    with server(stall_once) as port, Load(port) as load:
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
