"""`[pusher]` in the file: what works, and what stops the start with a sentence."""

import pytest

from fastws.command.settings import Faults, load
from fastws.errors import ConfigurationError
from fastws.pusher.settings import PusherSettings
from fastws.standalone import create_server
from fastws.testing import running

from .conftest import ID, KEY, SECRET, App


def read(tmp_path, text):
    file = tmp_path / "fastws.toml"
    file.write_text(f"port = 0\n[pusher]\n{text}")
    return load(file, {}, {})


async def test_the_file_alone_makes_an_application(tmp_path, dial_pusher):
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    settings = read(tmp_path, f'app_id = {ID}\nkey = "{KEY}"\nsecret_file = "{secret}"\n')
    server = create_server(settings)
    async with running(server) as url:
        app = App(server, server.endpoints["/app/{key}"].listener, url)
        wire = await dial_pusher(app)
        await wire.subscribe("private-cars")
        assert await app.call("trigger", "private-cars", "hi", "there") == {}
        assert await wire.receive() == ("hi", "private-cars", "there")
        # What is published in another way arrives as the event "message".
        server.endpoints["/app/{key}"].broadcast("private-cars", app.listener.envelope("private-cars", {"a": 1}, None))
        assert await wire.receive() == ("message", "private-cars", {"a": 1})
        app.manager.send(list(app.manager.connections), app.listener.direct(b"to you"))
        assert await wire.receive() == ("message", None, "to you")
        app.listener.enter(app.manager.subscribers("private-cars")[0], "bikes")
        assert await wire.receive() == ("pusher_internal:subscription_succeeded", "bikes", {})
        assert app.manager.channels == {"private-cars": 1, "bikes": 1}
        await wire.client.close()
    assert SECRET not in repr(settings.pusher)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "app_id is missing"),
        ('app_id = "1"\nkey = "k"', "secret is missing: set secret or secret_file"),
        ('app_id = "1"\nkey = "k"\nsecret = "short"', "secret is too short: give 16 characters or more"),
        ('app_id = "1"\nkey = "k"\nsecret_file = "/nowhere"', "secret_file='/nowhere' cannot be read: No such file"),
        (f'app_id = "1"\nkey = "k"\nsecret = "{SECRET}"\nsecret_file = "/x"', "secret and secret_file say the same"),
        (f'app_id = "a/b"\nkey = "k"\nsecret = "{SECRET}"', "app_id='a/b' does not work in a path"),
        (f'app_id = "1"\nkey = ""\nsecret = "{SECRET}"', "key='' does not work in a path"),
        (f'app_id = "1"\nkey = "k"\nsecret = "{SECRET}"\nclient_events = "some"', "client_events='some'"),
        (f'app_id = "1"\nkey = "k"\nsecret = "{SECRET}"\nactivity_timeout = 0', "activity_timeout=0"),
        (f'app_id = "1"\nkey = "k"\nsecret = "{SECRET}"\nwebhook_url = "x"', "webhook_url='x' is not a URL"),
        (f'app_id = "1"\nkey = "k"\nsecret = "{SECRET}"\nevents_per_seconds = 1', "did you mean events_per_second?"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(tmp_path, text, sentence):
    with pytest.raises(Faults) as faults:
        read(tmp_path, text)
    assert any(sentence in fault for fault in faults.value.sentences), faults.value.sentences
    assert SECRET not in str(faults.value)


def test_code_may_not_give_both_secrets(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigurationError, match="both set"):
        PusherSettings(app_id=1, key="k", secret=SECRET, secret_file="x")
    with pytest.raises(ConfigurationError, match="it is not text"):
        PusherSettings(app_id=1, key="k", secret_file=str(file))
