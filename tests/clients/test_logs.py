"""Both clients in channels that keep what is sent, at the real server: nothing is missed, or they are told so."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

from fastws import History, Latest

from .both import RETRY
from .js import TIMEOUT
from .link import linked
from .real import create

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

LOGS = {"prices": Latest(changes=20), "short": History(size=5), "cars*": History(size=5000)}


class Site:
    """A running server, the line to it, and a client at its other end."""

    def __init__(self, server, link, client):
        self.manager = server.endpoints["/ws"]
        self.link = link
        self.client = client

    async def open(self, channel, **options):
        await self.client.open(self.link.url, channel, options)
        await self.until(lambda heard: heard[0])

    async def publish(self, channel, messages):
        for message in messages:
            await self.manager.publish(channel, message)

    async def set(self, **values):
        """Values of keys in `prices`; None deletes one."""
        for key, value in values.items():
            if value is None:
                await self.manager.delete("prices", key)
            else:
                await self.manager.publish("prices", value, key=key)

    async def lose(self):
        """Cut the line, and keep it so."""
        self.link.is_up = False
        self.link.cut()
        async with asyncio.timeout(TIMEOUT):
            while await self.client.state() == "open":
                await asyncio.sleep(0.005)

    async def until(self, reached):
        """Wait until what each use has heard is so."""
        try:
            async with asyncio.timeout(TIMEOUT):
                while not reached(self.client.heard):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(self.client.heard) from None

    async def until_values(self):
        """Wait until what a use of `prices` has put together is what the server has."""
        values = {key: entry.message for key, entry in (await self.manager.latest("prices")).items()}
        await self.until(lambda heard: values_of(heard[0]) == values)
        return values

    def told(self, use=0):
        """What each `subscribed` said, since the first."""
        return [details for kind, *_, details in self.client.heard[use] if kind == "subscribed"][1:]


def messages_of(events):
    return [event[1] for event in events if event[0] == "message"]


def values_of(events):
    """What an application has that does with a log by key as it is told."""
    values = {}
    for kind, *message, details in events:
        if kind == "subscribed":
            if not details["recovered"] or details["snapshot"]:
                values.clear()
        elif details["deleted"]:
            values.pop(details["key"], None)
        else:
            values[details["key"]] = message[0]
    return values


@pytest.fixture
def serving(client, monkeypatch):
    monkeypatch.setattr("fastws.v1.listener.RETRY", RETRY)

    @asynccontextmanager
    async def serving(**options):
        async with create(logs=LOGS, **options) as server, linked(server.port) as link:
            yield Site(server, link, client)

    return serving


async def test_from_message_zero_nothing_is_missed(serving):
    async with serving() as site:
        await site.open("cars")
        first = site.client.heard[0][0][1]
        assert (first["log"], first["recovered"], first["reason"], first["count"]) == ("history", False, "new", 0)
        assert (await site.client.position()).startswith("0-")
        await site.lose()
        await site.publish("cars", range(50))
        site.link.is_up = True
        await site.until(lambda heard: len(messages_of(heard[0])) == 50)
        await site.publish("cars", [50])
        await site.until(lambda heard: len(messages_of(heard[0])) == 51)
        assert messages_of(site.client.heard[0]) == list(range(51))
        (told,) = site.told()
        assert (told["recovered"], told["count"], told.get("reason")) == (True, 50, None)
        assert (await site.client.position()).startswith("51-")
        assert await site.client.duplicates() == 0


async def test_one_who_was_away_for_too_long_is_told_and_goes_on_from_there(serving):
    async with serving() as site:
        await site.open("short")
        await site.publish("short", [0])
        await site.until(lambda heard: messages_of(heard[0]) == [0])
        await site.lose()
        await site.publish("short", range(1, 21))
        site.link.is_up = True
        await site.until(lambda heard: len(site.told()) == 1)
        assert (site.told()[0]["recovered"], site.told()[0]["reason"], site.told()[0]["count"]) == (False, "trimmed", 0)
        await site.lose()
        await site.publish("short", [21])
        site.link.is_up = True
        await site.until(lambda heard: len(site.told()) == 2 and len(messages_of(heard[0])) == 2)
        assert (messages_of(site.client.heard[0]), site.told()[1]["recovered"]) == ([0, 21], True)


async def test_more_than_is_sent_is_told(serving):
    async with serving(resume_limit=10) as site:
        await site.open("cars")
        await site.lose()
        await site.publish("cars", range(11))
        site.link.is_up = True
        await site.until(lambda heard: len(site.told()) == 1)
        assert (site.told()[0]["recovered"], site.told()[0]["reason"]) == (False, "too_many")
        assert (await site.client.position()).startswith("11-")


async def test_a_log_that_is_cleared_is_told_to_those_who_are_there_and_to_those_who_come_back(serving):
    async with serving() as site:
        await site.open("cars")
        await site.publish("cars", ["before"])
        await site.until(lambda heard: messages_of(heard[0]) == ["before"])
        await site.manager.clear("cars")
        await site.until(lambda heard: site.told())
        assert (site.told()[0]["recovered"], site.told()[0]["reason"]) == (False, "cleared")
        await site.publish("cars", ["after"])
        await site.until(lambda heard: messages_of(heard[0]) == ["before", "after"])
        await site.lose()
        await site.manager.clear("cars")
        site.link.is_up = True
        await site.until(lambda heard: len(site.told()) == 2)
        assert (site.told()[1]["recovered"], site.told()[1]["reason"]) == (False, "unknown")


async def test_the_latest_of_each_key_is_what_the_server_has(serving):
    async with serving() as site:
        await site.set(AAPL=1, MSFT=2, GOOG=3, AMZN=4)
        await site.set(GOOG=None)
        await site.open("prices")
        assert await site.until_values() == {"AAPL": 1, "MSFT": 2, "AMZN": 4}
        first = site.client.heard[0][0][1]
        assert (first["log"], first["recovered"], first["snapshot"], first["count"]) == ("latest", True, True, 3)
        await site.set(AAPL=5, MSFT=None)
        assert await site.until_values() == {"AAPL": 5, "AMZN": 4}
        await site.lose()
        await site.set(AAPL=6, AMZN=None, GOOG=7)
        await site.set(AAPL=8)
        site.link.is_up = True
        assert await site.until_values() == {"AAPL": 8, "GOOG": 7}
        changes = site.told()[0]
        assert (changes["recovered"], changes["snapshot"], changes["count"]) == (True, False, 3)
        await site.lose()
        for value in range(50):  # more changes than are kept
            await site.set(GOOG=value, AMZN=value)
        await site.set(AAPL=None)
        site.link.is_up = True
        assert await site.until_values() == {"GOOG": 49, "AMZN": 49}
        anew = site.told()[1]
        assert (anew["recovered"], anew["snapshot"], anew["count"]) == (True, True, 2)
        await site.manager.clear("prices")
        assert await site.until_values() == {}
        assert await site.client.duplicates() == 0


async def test_a_second_use_of_the_latest_gets_all_of_it(serving):
    async with serving() as site:
        await site.set(AAPL=1, MSFT=2)
        await site.open("prices")
        await site.until_values()
        await site.client.use("prices", {})
        await site.until(lambda heard: values_of(heard[1]) == values_of(heard[0]) == {"AAPL": 1, "MSFT": 2})
        await site.set(AAPL=None)
        await site.until(lambda heard: values_of(heard[1]) == values_of(heard[0]) == {"MSFT": 2})


async def test_several_channels_come_back_at_once(serving):
    async with serving() as site:
        names = ["cars", "cars too", "short", "nothing kept"]
        await site.open(names[0])
        for name in [*names[1:], "prices"]:
            await site.client.use(name, {})
        await site.until(lambda heard: all(heard))
        await site.lose()
        for name in names[:3]:
            await site.publish(name, [f"{n} in {name}" for n in range(3)])
        await site.set(AAPL=1)
        site.manager.broadcast("nothing kept", '{"type":"message","channel":"nothing kept","message":1,"time":1}')
        site.link.is_up = True
        await site.until(lambda heard: all(site.told(use) for use in range(5)))
        await site.until(lambda heard: [len(messages_of(events)) for events in heard] == [3, 3, 3, 0, 1])
        for use, name in enumerate(names[:3]):
            assert messages_of(site.client.heard[use]) == [f"{n} in {name}" for n in range(3)]
            assert [told["recovered"] for told in site.told(use)] == [True]
        (told,) = site.told(3)
        assert (told["log"], told["position"], told["recovered"], told["reason"]) == (None, None, False, "new")


async def test_a_later_page_goes_on_where_an_earlier_one_was(serving):
    async with serving() as site:
        position = await site.manager.publish("cars", "seen")
        await site.publish("cars", ["missed", "missed too"])
        await site.client.open(site.link.url, "cars", {"position": str(position)})
        await site.until(lambda heard: len(heard[0]) == 3)
        assert messages_of(site.client.heard[0]) == ["missed", "missed too"]
        first = site.client.heard[0][0][1]
        assert (first["recovered"], first["count"]) == (True, 2)


async def test_what_is_for_some_has_no_position(serving):
    async with serving() as site:
        await site.open("cars")
        await site.publish("cars", ["for all"])
        envelope = site.manager.listener.envelope("cars", "for some", None)
        site.manager.broadcast("cars", envelope, exclude=[])
        await site.until(lambda heard: messages_of(heard[0]) == ["for all", "for some"])
        assert [event[2]["position"] is None for event in site.client.heard[0][1:]] == [False, True]
        assert (await site.client.position()).startswith("1-")


@pytest.mark.parametrize("channel", ["cars", "prices"])
async def test_a_line_that_breaks_again_and_again_loses_nothing(serving, channel):
    """The line breaks after so many bytes, within a message as well; and what is published goes on."""
    chance = random.Random(12)
    async with serving(resume_limit=5000) as site:
        await site.open(channel)
        published = 0
        while published < 300 or (published < 5000 and len(site.told()) < 4):
            if channel == "cars":
                await site.publish("cars", [published])
            else:
                key = f"key {chance.randrange(30)}"
                await site.set(**{key: None if chance.random() < 0.2 else published})
            if published % 20 == 0:
                site.link.rest = chance.randrange(3000)
            published += 1
            await asyncio.sleep(0.002)
        site.link.rest = None
        if channel == "prices":
            await site.until_values()
        else:
            await site.until(lambda heard: len(messages_of(heard[0])) >= published)
            assert messages_of(site.client.heard[0]) == list(range(published))
        assert len(site.told()) >= 4
        assert all(told["recovered"] for told in site.told())
        assert await site.client.duplicates() == 0
