"""API keys: how they are set, and what cannot work."""

import hashlib

import msgspec
import pytest

from fastws import ConfigurationError, Reject
from fastws.access import keys as module
from fastws.access.keys import Keys, KeySettings

KEY = "0123456789abcdef"
HEADERS = {"x-api-key": KEY}


def test_a_key_is_itself_in_a_file_or_a_digest(tmp_path):
    path = tmp_path / "key"
    path.write_text(f"  {KEY}\n")
    for given in ({"key": KEY}, {"key_file": str(path)}, {"key_sha256": hashlib.sha256(KEY.encode()).hexdigest()}):
        assert Keys([KeySettings(name="a", **given)]).check(HEADERS, "read").name == "a"


def test_the_configuration_file_says_the_same():
    settings = msgspec.convert([{"name": "a", "key": KEY, "allow": ["read"], "channels": ["a.*"]}], list[KeySettings])
    key = Keys(settings).check(HEADERS, "read")
    assert (key.covers("a.1"), key.covers("b")) == (True, False)
    with pytest.raises(Reject, match="403 the key 'a' may not send"):
        Keys(settings).check(HEADERS, "send")
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "a", "key": KEY, "allow": ["reed"]}, KeySettings)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"name": "a"}], "has 0 of key"),
        ([{"name": "a", "key": KEY, "key_sha256": "0" * 64}], "has 2 of key"),
        ([{"name": "a", "key": "short-secret"}], "too short: give 16"),
        ([{"name": "a", "key": KEY + " \u00e9"}], "no header field carries"),
        ([{"name": "a", "key_sha256": "secret"}], "give 64 hexadecimal digits"),
        ([{"name": "a", "key_sha256": "ab" * 31}], "give 64 hexadecimal digits"),
        ([{"name": "a", "key_file": "/nowhere/key"}], "cannot be read"),
        ([{"name": "", "key": KEY}], "empty or taken"),
        ([{"name": "a", "key": KEY}, {"name": "a", "key": KEY + "2"}], "empty or taken"),
        ([{"name": "a", "key": KEY}, {"name": "b", "key": KEY}], "is the key of another"),
    ],
)
def test_what_cannot_work_is_told_without_the_key(given, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        Keys([KeySettings(**entry) for entry in given])
    assert KEY not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_wrong_keys_are_counted_by_address_for_a_minute(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    keys = Keys([KeySettings(name="a", key=KEY)])

    def status(host):
        with pytest.raises(Reject) as caught:
            keys.check({"x-api-key": "wrong"}, "read", (host, 1))
        return caught.value.status

    assert [status("10.0.0.1") for _ in range(6)] == [401] * 5 + [429]
    assert status("10.0.0.2") == 401
    assert [status(f"2001:db8::{n}") for n in range(6)] == [401] * 5 + [429]  # of one /64
    assert status("2001:db8:0:1::") == 401
    assert keys.check(HEADERS, "read", ("10.0.0.1", 1)).name == "a"
    now[0] += 61
    assert status("10.0.0.1") == 401


def test_the_table_of_addresses_is_bounded():
    keys = Keys([KeySettings(name="a", key=KEY)])
    for n in range(module.MOST_ADDRESSES + 50):
        with pytest.raises(Reject):
            keys.check({}, "read", (f"10.0.{n // 256}.{n % 256}", 1))
        with pytest.raises(Reject):
            keys.check({"x-api-key": "wrong"}, "read", (f"10.0.{n // 256}.{n % 256}", 1))
    assert len(keys._failures._addresses) == module.MOST_ADDRESSES
