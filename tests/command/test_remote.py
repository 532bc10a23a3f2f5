"""`fastws publish`, `tail`, `top`, `refusals`: at a server that runs."""

import json
import subprocess

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastws.client import Message
from fastws.command.settings import load
from fastws.command.tail import line

from ..lib.command import COMMAND, TIMEOUT, port_of, run, serving
from ..lib.fast import hear, subscribed
from ..lib.lines import Lines

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def port(tmp_path):
    """The port of a server with the configuration that `init` writes, but for the port."""
    run("init")
    file = tmp_path / "fastws.toml"
    with serving("--port", "0") as (_, line):
        file.write_text(file.read_text().replace("port = 8765", f"port = {port_of(line)}"))
        yield port_of(line)


def said(*arguments, **options):
    ended = run(*arguments, **options)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize(
    ("message", "heard"),
    [
        ("hello", "hello"),
        ('{"hi": 1}', {"hi": 1}),
        ("[1, 2]", [1, 2]),
        ("5", 5),
        ("null", None),
        ("übel {", "übel {"),
    ],
)
def test_a_message_that_is_json_is_sent_as_that(port, message, heard):
    with subscribed(port, "public.news") as client:
        assert said("publish", "public.news", message) == "1 connection\n"
        assert hear(client)["message"] == heard


def test_a_message_may_be_meant_as_text_or_come_from_the_standard_input(port):
    with subscribed(port, "public.news") as client:
        said("publish", "--text", "public.news", "[1]")
        assert hear(client)["message"] == "[1]"
        subprocess.run([*COMMAND, "publish", "public.news", "-"], input=b"from a pipe", check=True, timeout=TIMEOUT)
        assert hear(client)["message"] == "from a pipe"
    assert said("publish", "public.news", "nobody is there") == "0 connections\n"


def test_a_message_may_be_for_some_users_alone(port):
    token = said("token", "--user", "ann").strip()
    with subscribed(port, "public.news", token=token) as ann, subscribed(port, "public.news"):
        assert said("publish", "public.news", "psst", "--user", "ann", "--user", "bob") == "1 connection\n"
        assert hear(ann)["message"] == "psst"


def test_the_url_and_the_key_may_be_given(port, tmp_path, monkeypatch):
    key = load(tmp_path / "fastws.toml", {}, {}).api.keys[0].key
    tmp_path.joinpath("fastws.toml").unlink()
    url = f"http://127.0.0.1:{port}"
    assert said("publish", "public.news", "x", "--url", url, "--key", key) == "0 connections\n"
    monkeypatch.setenv("FASTWS_URL", url)
    monkeypatch.setenv("FASTWS_KEY", key)
    assert said("publish", "public.news", "x") == "0 connections\n"
    assert "no key that may broadcast" in run("publish", "x", "y", "--url", url, "--key", "").stderr
    ended = run("publish", "public.news", "x", "--key", "wrong" * 5)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"fastws: {url}: 401 this key is not known (")


def test_a_server_that_is_not_there_is_one_sentence(port):
    for arguments in (("publish", "a", "b"), ("top", "--once"), ("refusals",), ("tail", "a")):
        ended = run(*arguments, "--url", "http://127.0.0.1:1")
        assert ended.returncode == 2
        assert ended.stderr.startswith("fastws: ")
        assert ended.stderr.count("\n") == 1


def test_tail_prints_what_a_channel_gets(port):
    command = [*COMMAND, "tail", "room.1", "--count", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        Lines(tail.stderr).until("subscribed to room.1")
        said("publish", "room.1", "hello")
        said("publish", "room.1", '{"a": 1}')
        lines = tail.stdout.read().splitlines()
        assert tail.wait(TIMEOUT) == 0
    assert [line.partition(" ")[2] for line in lines] == ['-: "hello"', '-: {"a": 1}']


def test_tail_names_the_keys_of_a_log_of_the_latest():
    value = Message({"a": 1}, "prices", None, None, 1000, "1-1", key="AAPL")
    gone = Message(None, "prices", None, None, 0, "2-2", key="AAPL", deleted=True)
    assert [line(message).partition(" ")[2] for message in (value, gone)] == [
        '-: AAPL = {"a": 1}',
        "-: AAPL is deleted",
    ]


def test_tail_says_why_it_may_not(port):
    ended = run("tail", "elsewhere")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"fastws: ws://127.0.0.1:{port}/ws: unknown_channel: there is no such channel")


def test_top_shows_endpoints_and_channels(port):
    with subscribed(port, "public.news"), subscribed(port, "public.news"), subscribed(port, "public.sport"):
        lines = [" ".join(line.split()) for line in said("top", "--once").splitlines()]
    assert lines[0].endswith("3 connections")
    assert "3 0 2 /ws" in lines
    assert lines[-2:] == ["2 0 public.news", "1 0 public.sport"]


def test_refusals_says_who_was_refused_and_why(port):
    with pytest.raises(InvalidStatus):
        connect(
            f"ws://127.0.0.1:{port}/ws", additional_headers={"Authorization": "Bearer x"}, origin="https://a.example"
        )
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{port}/nowhere")
    one, other = said("refusals").splitlines()
    assert "/ws 401 the token is not valid, from https://a.example (" in one
    assert "127.0.0.1" in one
    assert "/nowhere 404" in other
    assert said("refusals", "--find", "/nowhere").splitlines() == [other]
    assert json.loads(said("refusals", "--json", "--limit", "1"))["status"] == 404
