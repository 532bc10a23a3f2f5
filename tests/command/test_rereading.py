"""SIGHUP: what changes at once, what needs a restart, and a broken file."""

import signal
from contextlib import contextmanager
from urllib.error import HTTPError

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from ..lib.command import TIMEOUT, port_of, run, serving
from ..lib.fast import publish, subscribed
from ..lib.lines import Lines

pytestmark = pytest.mark.usefixtures("folder")

KEY, OTHER = "a" * 32, "b" * 32
TEXT = """\
port = {port}
{top}
[api]
[[api.keys]]
name = "shop"
key = "{key}"
[log]
level = "{level}"
[[channels]]
pattern = "{pattern}"
subscribe = "anyone"
"""


class Reread:
    def __init__(self, process, line, folder):
        self.process, self.port, self.lines = process, port_of(line), Lines(process.stderr)
        self._file = folder / "fastws.toml"
        self._times = 0

    def write(self, **values):
        self._file.write_text(TEXT.format(**{**DEFAULTS, **values}))

    def again(self, **values):
        """Write a file and have it read; the line that the log has then."""
        self.write(**values)
        return self.signal()

    def signal(self, text="the configuration was read again"):
        self._times += 1
        self.process.send_signal(signal.SIGHUP)
        return self.lines.until(text, self._times).partition("fastws.command: ")[2].strip()


DEFAULTS = {"port": 0, "top": "", "key": KEY, "level": "info", "pattern": "news"}


@pytest.fixture
def served(folder):
    with serving_file(folder) as site:
        yield site


@contextmanager
def serving_file(folder, *arguments, **values):
    folder.joinpath("fastws.toml").write_text(TEXT.format(**{**DEFAULTS, **values}))
    with serving(*arguments) as (process, line):
        yield Reread(process, line, folder)


def publish_refused(port, key):
    with pytest.raises(HTTPError, match="401") as refused:
        publish(port, key, "news", "x")
    refused.value.close()  # it is the answer, too


def test_rules_keys_and_origins_change_at_once_and_who_is_there_stays(served):
    with subscribed(served.port, "news") as old:
        assert old.answer["type"] == "subscribed"
        said = served.again(key=OTHER, pattern="sport", top='origins = ["https://a.example"]')
        assert said == "the configuration was read again: origins, [[channels]], [api] keys changed"
        publish_refused(served.port, KEY)
        assert publish(served.port, OTHER, "news", "still there") == {"connections": 1}
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{served.port}/ws")
        with subscribed(served.port, "sport", origin="https://a.example") as new:
            assert new.answer["type"] == "subscribed"
        with subscribed(served.port, "news", origin="https://a.example") as refused:
            assert refused.answer["code"] == "unknown_channel"


def test_the_level_of_the_log_changes_at_once(served):
    served.write(level="error")
    served.process.send_signal(signal.SIGHUP)
    publish_refused(served.port, OTHER)
    said = served.again(level="debug")
    assert said == "the configuration was read again: [log] level changed"
    publish_refused(served.port, OTHER)
    served.lines.until("refused: 401")


def test_what_needs_a_restart_is_named_in_one_line(served):
    said = served.again(port=1, top="idle_timeout = 5\n[raw]")
    assert said == (
        "the configuration was read again: nothing changed; a restart is needed for idle_timeout, port, [raw]"
    )


def test_nothing_new_is_said_to_be_nothing(served):
    assert served.signal() == "the configuration was read again: nothing changed"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"port": "'x'"}, "the old settings stay: fastws.toml:1: port='x'"),
        ({"level": 'loud"\nx = "1'}, "the old settings stay: fastws.toml:9: [log] 'x':"),
        ({"pattern": "{x}"}, "the old settings stay: [[channels]] '{x}': the only name in braces is {user}"),
        ({"key": "short"}, "the old settings stay: [[api.keys]] 'shop' is too short"),
        ({"top": "port = "}, "the old settings stay: fastws.toml:2:"),
    ],
)
def test_a_broken_file_is_one_line_and_nothing_changes(served, values, sentence):
    before = len(served.lines.all)
    served.write(**{"key": OTHER, "pattern": "sport", **values})
    assert served.signal("the old settings stay").startswith(sentence)
    with subscribed(served.port, "news") as client:
        assert client.answer["type"] == "subscribed"
        assert publish(served.port, KEY, "news", "x") == {"connections": 1}
    assert len([line for line in served.lines.all[before:] if "fastws.command" in line]) == 1


def test_a_server_of_ones_own_gets_new_origins(folder):
    folder.joinpath("fastws.toml").write_text('target = "app:create"\n[log]\nlevel = "info"\n')
    with serving() as (process, line):
        lines = Lines(process.stderr)
        with connect(f"ws://127.0.0.1:{port_of(line)}/echo"):
            pass
        folder.joinpath("fastws.toml").write_text('target = "app:create"\norigins = ["x"]\n[log]\nlevel = "info"\n')
        process.send_signal(signal.SIGHUP)
        lines.until("origins changed")
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{port_of(line)}/echo")
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0


def test_sections_beside_a_server_of_ones_own_are_warned_of(folder):
    folder.joinpath("fastws.toml").write_text('[[channels]]\npattern = "x"\n')
    with serving("app:create") as (process, _):
        lines = Lines(process.stderr)
        lines.until("[channels] does nothing here: app:create is not described by sections")
    assert run("check").returncode == 0
