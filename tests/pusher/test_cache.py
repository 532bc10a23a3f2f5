"""The last events of cache channels: for half an hour, and of so many channels at most."""

import time

from fastws.pusher import cache
from fastws.pusher.cache import TTL, Cache


async def test_an_event_is_kept_for_half_an_hour_and_then_forgotten(monkeypatch):
    monkeypatch.setattr(cache, "TEND_SECONDS", 3600)
    events = {}
    kept = Cache(events)
    kept.put("cache-a", "news", "1")
    kept.put("cache-a", "news", "2")
    assert (kept.get("cache-a").data, kept.get("cache-b")) == ("2", None)
    begin = time.time()
    monkeypatch.setattr(cache.time, "time", lambda: begin + TTL - 10)
    assert 9 <= kept.get("cache-a").left <= 10
    kept.put("cache-b", "news", "3")
    monkeypatch.setattr(cache.time, "time", lambda: begin + TTL + 1)
    assert kept.get("cache-a") is None
    kept._tend()
    assert list(events) == ["cache-b"]
    assert kept._timer is not None
    kept.stop()
    assert kept._timer is None


async def test_the_oldest_events_go_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(cache, "MOST", 10)
    events = {}
    kept = Cache(events)
    now = time.time()
    for number in range(11):
        monkeypatch.setattr(cache.time, "time", lambda number=number: now + number)
        kept.put(f"cache-{number}", "news", "")
    assert list(events) == [f"cache-{number}" for number in range(2, 11)]
    kept.stop()
