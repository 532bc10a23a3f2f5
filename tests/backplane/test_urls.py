"""URLs of backplanes: what they make, and what is said of those that make nothing."""

import subprocess
import sys

import pytest

from fastws import ConfigurationError
from fastws.backplane import NATS, Redis, from_url
from fastws.backplane.memory import Memory
from fastws.backplane.redis.addresses import place_of
from fastws.backplane.redis.link import Address


@pytest.mark.parametrize(
    ("url", "kind", "addresses", "name", "who", "database"),
    [
        ("redis://10.0.0.5", "server", [("10.0.0.5", 6379)], "", ("", ""), 0),
        ("redis://ann:p%40ss@host:7000/3", "server", [("host", 7000)], "", ("ann", "p@ss"), 3),
        ("redis://:secret@[::1]:7000", "server", [("::1", 7000)], "", ("", "secret"), 0),
        ("rediss://host/", "server", [("host", 6379)], "", ("", ""), 0),
        ("unix:///run/redis.sock", "server", [("/run/redis.sock", 0)], "", ("", ""), 0),
        ("sentinel://:pw@a,b:7,c/main", "sentinel", [("a", 26379), ("b", 7), ("c", 26379)], "main", ("", "pw"), 0),
        ("sentinels://a/main/2", "sentinel", [("a", 26379)], "main", ("", ""), 2),
        ("redis+cluster://a,b:7", "cluster", [("a", 6379), ("b", 7)], "", ("", ""), 0),
    ],
)
def test_urls_of_redis(url, kind, addresses, name, who, database):
    place = place_of([url], None)
    assert (place.kind, place.addresses, place.name) == (kind, [Address(*each) for each in addresses], name)
    credentials = place.credentials
    assert (credentials.username, credentials.password, credentials.database) == (*who, database)
    assert (credentials.tls is not None) == url.startswith(("rediss", "sentinels"))
    assert isinstance(from_url(url), Redis)


def test_a_password_is_not_shown():
    assert from_url("redis://ann:secret@host:7000/3").url == "redis://host:7000/3"
    assert Redis("redis://:secret@a", "redis://:secret@b").url == "redis://a, redis://b"
    with pytest.raises(ConfigurationError) as raised:
        Redis("redis://:secret@host/x")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://", "redis://host/x", "redis://host:x", "redis://host/-1", "redis://host/0/1", "redis://host?db=1"),
        *("sentinel://host", "redis+cluster://host/1", "redis+cluster://a,,b"),
    ],
)
def test_urls_that_say_nothing_useful(url):
    with pytest.raises(ConfigurationError, match="is no URL of a Redis: they look like redis://"):
        from_url(url)


@pytest.mark.parametrize("urls", [["redis://a", "sentinel://b/c"], ["redis://a/1", "redis://b/2"]])
def test_several_servers_must_be_alike(urls):
    with pytest.raises(ConfigurationError, match="several"):
        Redis(*urls)


@pytest.mark.parametrize("url", ["nats://host", "nats://ann:secret@h1:4222,h2?replicas=3", "tls://host"])
def test_urls_of_nats(url):
    backplane = from_url(url)
    assert isinstance(backplane, NATS)
    assert "secret" not in backplane.url


def test_memory_is_a_url_too():
    assert isinstance(from_url("memory://"), Memory)


@pytest.mark.parametrize("url", ["kafka://host", "10.0.0.5:6379", "", "redis:host"])
def test_unknown_schemes(url):
    with pytest.raises(ConfigurationError, match="is unknown; a URL begins with one of redis://"):
        from_url(url)


HIDDEN = """
import sys
sys.modules["hiredis"] = None
import fastws.backplane
from fastws import ConfigurationError
for ask in (lambda: fastws.backplane.Redis, lambda: fastws.backplane.from_url("redis://host")):
    try:
        ask()
    except ConfigurationError as error:
        print(error)
"""


def test_what_is_missing_is_named_with_the_fix():
    done = subprocess.run([sys.executable, "-c", HIDDEN], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["Redis needs hiredis: pip install 'fastws-server[redis]'"] * 2
