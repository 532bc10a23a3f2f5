"""The clients of the soak test: guests, who check all that they receive, and pests, who act like hostile strangers."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from ..lib.raw import BINARY, CONTINUATION, PING, TEXT, Raw, close_frame, frame, request
from .server import OPTIONS, POLICIES

PATIENCE = 30.0  # seconds after which the server counts as not answering
CHANNELS = [f"channel-{number}" for number in range(20)]  # of each endpoint
STAY = 30.0  # seconds that a guest stays, on average
SILENCE = 8.0  # seconds between messages of a guest, on average


@dataclass
class Tally:
    """What the crowd has seen so far."""

    joined: int = 0
    heard: int = 0
    pestered: int = 0
    faults: list[str] = field(default_factory=list)


class Guest(WSListener):
    """Reads at once, and must receive everything in its channels once, in order, from joining to leaving."""

    def __init__(self, name: str, tally: Tally) -> None:
        self.name = name
        self.tally = tally
        self.transport: WSTransport
        self.next: dict[str, int] = {}  # by channel
        self.senders: dict[tuple[str, str], int] = {}  # the last message of each, by channel
        self.said = 0
        self.answered = 0
        self.shouted: int | None = None
        self.is_leaving = False
        self.left = asyncio.Event()
        self.gone = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, got: WSFrame) -> None:
        if got.msg_type == WSMsgType.CLOSE:
            self.check(False, f"the server closes with {got.get_close_code()} {got.get_close_message()}")
        elif got.msg_type == WSMsgType.TEXT:
            self.tally.heard += 1
            self.hear(got.get_payload_as_utf8_text().split(" ", 5))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.check(self.left.is_set(), "the connection ended")
        self.left.set()
        self.gone.set()

    def hear(self, words: list[str]) -> None:
        match words:
            case ["say", channel, number, sender, said, text]:
                self.check(int(number) == self.next.get(channel), f"{words} is not {self.next.get(channel)}")
                self.next[channel] = int(number) + 1
                before = self.senders.get((channel, sender), 0)
                self.check(int(said) > before, f"{words} follows {before}")
                self.senders[channel, sender] = int(said)
                self.check(sender == "server" or text == padding(int(said)), f"{words} is not whole")
            case ["heard", said]:
                self.answered += 1
                self.check(int(said) == self.answered, f"{words} is not {self.answered}")
            case ["thread", number]:
                self.check(self.shouted in (None, int(number) - 1), f"{words} follows {self.shouted}")
                self.shouted = int(number)
            case ["from", channel, number]:
                self.check(channel not in self.next, f"{words} twice")
                self.next[channel] = int(number) + 1
            case ["till", channel, number]:
                self.check(self.next.pop(channel, None) == int(number) + 1, f"{words} is not where it ended")
                if not self.next:
                    self.check(self.answered == self.said, f"{self.answered} of {self.said} were answered")
                    self.left.set()
            case _:
                self.check(False, f"{words} is nothing that was sent")

    def check(self, holds: bool, otherwise: str) -> None:
        if not holds and not self.left.is_set():
            self.tally.faults.append(f"{self.name}: {otherwise}")

    def say(self, channel: str) -> None:
        self.said += 1
        self.transport.send(WSMsgType.TEXT, f"say {channel} {self.said} {padding(self.said)}")

    async def leave(self) -> None:
        """Ask for the last numbers, and wait for all earlier messages."""
        self.transport.send(WSMsgType.TEXT, "leave")
        await self.left.wait()


def padding(number: int) -> str:
    """The text of a sender's message, of any size, but rarely large."""
    return "x" * (number * 7919 % 300 if number % 50 else 5000)


async def guest(url: str, name: str, source: random.Random, over: asyncio.Event, tally: Tally) -> None:
    """The life of one guest, from joining to leaving."""
    channel = source.choice(CHANNELS)
    one = Guest(name, tally)
    try:
        async with asyncio.timeout(PATIENCE):
            await ws_connect(
                lambda: one, f"{url}/{source.choice(POLICIES)}/{channel}?user={name}", use_aiofastnet=False
            )
        tally.joined += 1
        rest = source.expovariate(1 / STAY)
        while rest > 0 and not over.is_set() and not one.gone.is_set():
            pause = min(rest, source.expovariate(1 / SILENCE))
            rest -= pause
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), pause)
            if not one.gone.is_set():
                one.say(source.choice([channel] * 20 + ["all"]))
        async with asyncio.timeout(PATIENCE):
            if not one.gone.is_set():
                await one.leave()
            if source.random() < 0.5:
                one.transport.send_close(1000)
            else:
                one.transport.disconnect(graceful=False)
            await one.gone.wait()
    except TimeoutError:
        tally.faults.append(f"{name}: no answer within {PATIENCE} s")


# -- pests: each gets a new TCP connection, which is closed afterwards


async def until_dropped(raw: Raw) -> None:
    """Read until the server closes it, which it must."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            while await loop.sock_recv(raw.sock, 65536):
                pass


async def half_a_handshake(raw: Raw, path: str, source: random.Random) -> None:
    whole = request(path)
    await raw.send(whole[: source.randrange(len(whole))])
    await until_dropped(raw)


async def rubbish(raw: Raw, path: str, source: random.Random) -> None:
    await raw.send(source.randbytes(source.randrange(1, 8000)))
    await until_dropped(raw)


async def rubbish_inside(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await raw.send(source.randbytes(source.randrange(1, 8000)))
    await until_dropped(raw)


async def plain_request(raw: Raw, path: str, source: random.Random) -> None:
    await raw.send(b"GET /favicon.ico HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await until_dropped(raw)


async def reset_at_once(raw: Raw, path: str, source: random.Random) -> None:
    await raw.send(request(path))
    raw.reset()


async def reset_in_a_frame(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await raw.send(frame(TEXT, b"say all 1 " + bytes(5000))[: source.randrange(1, 5000)])
    raw.reset()


async def reset_while_hearing(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await asyncio.sleep(source.random() * 3)
    raw.reset()


async def half_close(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await asyncio.sleep(source.random())
    raw.half_close()
    await until_dropped(raw)


async def close_and_go(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await raw.send(close_frame(source.choice([1000, 1001, 999, 3000])))


async def all_at_once(raw: Raw, path: str, source: random.Random) -> None:
    """The handshake, messages and the Close in one segment."""
    channel = path.rpartition("/")[2]
    says = [frame(TEXT, f"say {channel} {number} {padding(number)}".encode()) for number in range(1, 9)]
    await raw.send(request(f"{path}?user=pest-{source.getrandbits(64)}") + b"".join(says) + close_frame(1000))
    await until_dropped(raw)


async def ping_flood(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    async with asyncio.timeout(1):
        await raw.send(frame(PING, bytes(125)) * 2000)
    await until_dropped(raw)


async def giant(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await raw.send(frame(BINARY, b"", announced=1 << 40, length_bits=64))
    await until_dropped(raw)


async def fragments(raw: Raw, path: str, source: random.Random) -> None:
    await raw.upgrade(path)
    await raw.send(frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 5000)
    await raw.send(frame(CONTINUATION, bytes(OPTIONS["max_message_size"]), fin=False))
    await until_dropped(raw)


async def silence(raw: Raw, path: str, source: random.Random) -> None:
    """Reads, but does not answer pings."""
    await raw.upgrade(path)
    await until_dropped(raw)


PESTS = [
    half_a_handshake,
    rubbish,
    rubbish_inside,
    plain_request,
    reset_at_once,
    reset_in_a_frame,
    reset_while_hearing,
    half_close,
    close_and_go,
    all_at_once,
    ping_flood,
    giant,
    fragments,
    silence,
]


async def stall(raw: Raw, path: str, source: random.Random) -> None:
    """Joins a busy channel, reads nothing for a while, then resets or reads what there is: whole frames."""
    await raw.upgrade(path.rpartition("/")[0] + "/flood")
    await asyncio.sleep(source.uniform(1, 20))
    if source.random() < 0.3:
        raw.reset()
        return
    with suppress(EOFError):
        async with asyncio.timeout(5):
            for _ in range(200):
                await raw.frame()


async def pester(url: str, pest, source: random.Random, tally: Tally) -> None:
    """Let one pest do its worst."""
    path = f"/{source.choice(POLICIES)}/{source.choice(CHANNELS)}"
    try:
        async with asyncio.timeout(PATIENCE):
            raw = await Raw.open(url, receive_buffer=4096 if pest is stall else None)
    except TimeoutError:
        tally.faults.append(f"{pest.__name__}: not accepted within {PATIENCE} s")
        return
    tally.pestered += 1
    try:
        await pest(raw, path, source)
    except (ConnectionError, EOFError):
        pass  # it was asked for
    except TimeoutError:
        if pest not in (stall, ping_flood):
            tally.faults.append(f"{pest.__name__}: not dropped within {PATIENCE} s")
    except AssertionError as wrong:
        tally.faults.append(f"{pest.__name__}: {wrong}")
    finally:
        raw.close()
