"""[hooks]: what cannot work is said in one sentence, which shows no secret."""

import msgspec
import pytest

from fastws import ConfigurationError
from fastws.hooks import HookSettings

from .conftest import SECRET

URL = "http://127.0.0.1:8500/fastws.php"


def test_the_defaults_are_those_of_the_specification():
    settings = HookSettings(url=URL)
    assert settings.ask == ("connect",)
    assert settings.tell == ("disconnected", "online", "offline", "occupied", "vacated")
    assert settings.headers == ("cookie", "authorization")
    numbers = settings.timeout, settings.concurrency, settings.max_pending, settings.retry_for, settings.heartbeat
    assert numbers == (3.0, 64, 10_000, 300, 60)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "localhost", "[::1]"])
def test_this_machine_needs_no_secret(host):
    assert HookSettings(url=f"http://{host}:1/x").key() is None


@pytest.mark.parametrize("host", ["10.0.0.1", "example.com", "[::2]", "localhost.example.com", "127.0.0.1.example.com"])
def test_any_other_needs_one(host):
    with pytest.raises(
        ConfigurationError, match=r"needs a secret, as .* is not this machine: set secret or secret_file"
    ):
        HookSettings(url=f"https://{host}/x")
    assert HookSettings(url=f"https://{host}/x", secret=SECRET).key()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"url": 5}, "url=5 does not work"),
        ({"url": "127.0.0.1/x"}, "url='127.0.0.1/x' does not work: give http://"),
        ({"url": "ftp://127.0.0.1/x"}, "does not work: give http://"),
        ({"url": "http://127.0.0.1:99999/"}, "does not work: give http://"),
        ({"url": "http://[::1/"}, "does not work: give http://"),
        ({"url": "http://127.0.0.1/{evnt}"}, "does not work: give http://"),
        ({"url": "http://127.0.0.1/a b"}, "does not work: give http://"),
        ({"ask": "connect"}, "ask='connect' does not work: give what the backend decides"),
        ({"ask": ["conect"]}, "conect.* does not work"),
        ({"tell": ["gone"]}, "gone.* does not work"),
        ({"headers": ["a b"]}, "headers=.* does not work"),
        ({"timeout": 0}, "timeout=0 does not work: give seconds for an ask, 0.05 to 60"),
        ({"timeout": "3"}, "timeout='3' does not work"),
        ({"timeout": float("nan")}, "timeout=nan does not work"),
        ({"timeout": True}, "timeout=True does not work"),
        ({"concurrency": 0}, "concurrency=0 does not work"),
        ({"concurrency": 1.5}, "concurrency=1.5 does not work"),
        ({"max_pending": -1}, "max_pending=-1 does not work"),
        ({"retry_for": -1}, "retry_for=-1 does not work"),
        ({"heartbeat": 100_000}, "heartbeat=100000 does not work"),
        ({"secret": SECRET, "secret_file": "x"}, "both set"),
        ({"secret_file": "/nowhere/secret"}, "secret_file='/nowhere/secret' cannot be read .No such file"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(settings, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        HookSettings(**{"url": URL, **settings})


@pytest.mark.parametrize(
    "secret", ["whsec_", "whsec_c2hvcnQ=", SECRET[6:], "whsec_!" + SECRET[7:], "whsec_" + "A" * 100, 7]
)
def test_a_wrong_secret_is_not_repeated(secret, tmp_path):
    file = tmp_path / "secret"
    file.write_text(str(secret))
    for settings in ({"secret": secret}, {"secret_file": str(file)}):
        with pytest.raises(ConfigurationError, match="secret") as caught:
            HookSettings(url=URL, **settings)
        assert str(secret)[6:] not in str(caught.value) or not str(secret)[6:]


def test_a_secret_may_lie_in_a_file(tmp_path):
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert HookSettings(url=URL, secret_file=str(file)).key() == HookSettings(url=URL, secret=SECRET).key()


def test_the_same_table_comes_from_a_file():
    table = {"url": URL, "ask": ["connect", "call"], "timeout": 1}
    assert msgspec.convert(table, HookSettings).ask == ("connect", "call")
    for wrong in ({"timeout": 90}, {"tiemout": 1}, {"url": "http://example.com/"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**table, **wrong}, HookSettings)
