"""`fastws config`, `check`, `explain`, `token`: what they say of a configuration."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from fastws.command.settings import SECTIONS, TopLevel, option_kinds

from ..lib.command import port_of, run, serving

pytestmark = pytest.mark.usefixtures("folder")

SECRET = "s" * 40
TEXT = f"""\
port = 0
origins = ["https://a.example", "https://b.example"]
[api]
[[api.keys]]
name = "shop"
key = "{SECRET}"
[auth]
secret = "{SECRET}"
[hooks]
url = "http://ann:{SECRET}@127.0.0.1:1/hooks"
[[channels]]
pattern = "room.*"
subscribe = "user"
publish = "member"
[[channels]]
pattern = "shop.*"
subscribe = "token"
"""


@pytest.fixture(autouse=True)
def file(tmp_path):
    path = tmp_path / "fastws.toml"
    path.write_text(TEXT)
    return path


def said(*arguments):
    ended = run(*arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


# -- config


def test_it_shows_each_value_with_its_source(monkeypatch):
    monkeypatch.setenv("FASTWS_MAX_BACKLOG", "5000")
    monkeypatch.setenv("FASTWS_HOOKS_TIMEOUT", "1m")
    lines = [" ".join(line.split()) for line in said("config", "--flush-threads", "2").splitlines()]
    assert "port = 0 # fastws.toml:1" in lines
    assert "max_backlog = 5000 # env FASTWS_MAX_BACKLOG" in lines
    assert "flush_threads = 2 # flag --flush-threads" in lines
    assert "hooks.timeout = 60.0 # env FASTWS_HOOKS_TIMEOUT" in lines
    assert 'channels[1].subscribe = "token" # fastws.toml:17' in lines
    assert not any("default" in line for line in lines)


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--env",), ("--defaults",)])
def test_it_shows_no_secret(arguments):
    text = said("config", *arguments)
    assert SECRET not in text
    assert text.count("********") == 3  # a key, a secret, and the password in a URL


def test_with_defaults_it_shows_all_options(file):
    content = json.loads(said("config", "--json", "--defaults"))
    assert content["idle_timeout"] == {"value": 300, "source": "default"}
    assert content["hooks.concurrency"] == {"value": 64, "source": "default"}
    assert content["channels[0].presence"] == {"value": False, "source": "default"}
    assert content["origins"] == {"value": ["https://a.example", "https://b.example"], "source": "fastws.toml:2"}
    assert content.keys() >= option_kinds().keys() | set(TopLevel.__struct_fields__)


def test_as_variables_it_shows_what_could_be_set_elsewhere(tmp_path, file, monkeypatch):
    """What it prints for a file, put into the environment, is the same configuration without the file."""
    file.write_text('port = 1\norigins = ["https://a.example"]\nrestart = true\nhost = "::1"\n[log]\naccess = true\n')
    shown = said("config", "--env")
    file.unlink()
    for line in shown.splitlines():
        name, _, value = line.partition("#")[0].strip().partition("=")
        monkeypatch.setenv(name, value.strip('"'))
    assert [line.partition("#")[0] for line in said("config", "--env").splitlines()] == [
        line.partition("#")[0].ljust(len(line.partition("#")[0])) for line in shown.splitlines()
    ]


def test_the_schema_knows_every_setting():
    schema = json.loads(said("config", "--schema"))
    assert schema["properties"].keys() == option_kinds().keys() | set(TopLevel.__struct_fields__) | SECTIONS.keys()
    assert all("description" in schema["properties"][name] for name in option_kinds())
    timeout = schema["$defs"]["HookSettings"]["properties"]["timeout"]
    assert timeout["anyOf"][0] == {"type": "number", "minimum": 0.05, "maximum": 60}
    assert timeout["description"].startswith("seconds")


# -- check


def test_a_good_file_is_said_to_be_good(file):
    assert said("check") == "fastws.toml: nothing is wrong\n"
    file.write_text("port = 0\n")
    assert "there are no [[channels]]" in said("check")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("port = -1\nprot = 1\n[log]\nlevel = 'x'", 3),
        ("ssl_certfile = 'none.pem'", 1),
        ("[[channels]]\npattern = 'a*'\n[[channels]]\npattern = '*a'\n", 1),
        ("[[channels]]\npattern = 'a'\nsubscribe = 'hook'\n", 1),
        ("target = 'nothing:server'", 1),
        ("[api]\n[[api.keys]]\nname = 'a'\nkey_file = 'none'\n", 1),
        ("[auth]\nsecret_file = 'none'\n", 1),
    ],
)
def test_a_bad_one_is_a_sentence_each_and_status_2(file, text, sentences):
    file.write_text(text)
    ended = run("check")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert [line[:8] for line in ended.stderr.splitlines()] == ["fastws: "] * sentences
    assert run("serve").stderr == ended.stderr


def test_a_certificate_that_is_not_there_is_said_with_its_line(file):
    file.write_text("port = 0\nssl_certfile = 'none.pem'\n")
    sentence = "ssl_certfile='none.pem' cannot be read: No such file or directory"
    assert run("check").stderr == f"fastws: fastws.toml:2: {sentence}\n"


def test_with_nothing_it_says_how_to_begin(file):
    file.unlink()
    for command in ("check", "serve"):
        ended = run(command)
        assert (ended.returncode, ended.stderr) == (
            2,
            "fastws: nothing is configured: `fastws demo` for a look, `fastws init` to begin\n",
        )


class Answers(BaseHTTPRequestHandler):
    status = 405

    def do_GET(self):
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def backend():
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_online_it_looks_for_the_backend(file, backend, monkeypatch):
    url = f"http://127.0.0.1:{backend.server_port}/x"
    file.write_text(f"[hooks]\nurl = '{url}'\n")
    assert "nothing is wrong" in said("check", "--online")
    monkeypatch.setattr(Answers, "status", 502)
    ended = run("check", "--online")
    assert (ended.returncode, ended.stderr) == (
        2,
        f"fastws: fastws.toml:2: [hooks] url='{url}' answers 502: see your backend's log\n",
    )


def test_online_a_backend_that_is_not_there_is_one_sentence(file):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    file.write_text(f"[hooks]\nurl = 'http://127.0.0.1:{port}/x'\n")
    assert "nothing is wrong" in said("check")
    ended = run("check", "--online")
    assert ended.returncode == 2
    assert ended.stderr == (
        f"fastws: fastws.toml:2: [hooks] url='http://127.0.0.1:{port}/x' does not answer (Connection refused): "
        "start your backend, or correct the url\n"
    )


def test_ready_asks_a_running_server(backend):
    with serving("app:create", "--ready-path", "/up") as (_, line):
        assert said("check", "--ready", f"http://127.0.0.1:{port_of(line)}/up") == ""
        ended = run("check", "--ready", f"http://127.0.0.1:{port_of(line)}/down")
        assert (ended.returncode, ended.stderr) == (1, f"fastws: http://127.0.0.1:{port_of(line)}/down answers 404\n")
    ended = run("check", "--ready", f"http://127.0.0.1:{port_of(line)}/up")
    assert (ended.returncode, ended.stderr) == (
        1,
        f"fastws: http://127.0.0.1:{port_of(line)}/up does not answer: Connection refused\n",
    )
    assert run("check", "--ready", "up").returncode == 2


# -- explain, token


def test_explain_says_which_rule_decides_and_why():
    assert 'pattern = "room.*" decides' in said("explain", "--user", "ann", "--channel", "room.1")
    assert "no [[channels]] has a pattern that matches" in said("explain", "--user", "ann", "--channel", "x")
    assert "yes" not in said("explain", "--channel", "room.1")


def test_explain_takes_what_a_token_says():
    token = said("token", "--user", "ann", "--channels", "shop.*").strip()
    assert "subscribe  yes" in said("explain", "--token", token, "--channel", "shop.1")
    assert "subscribe  no" in said("explain", "--user", "ann", "--channel", "shop.1")
    ended = run("explain", "--token", "x" + token, "--channel", "shop.1")
    assert (ended.returncode, ended.stderr[:32]) == (2, "fastws: the token is refused: de")


def test_a_token_is_checked_by_the_command_that_made_it():
    token = said("token", "--user", "ann", "--channels", "a.*", "--channels", "b", "--ttl", "2h").strip()
    text = said("token", "--check", token)
    assert text.startswith("user ann, until 2")
    assert "channels: ['a.*', 'b']" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --user NAME, for a token, or --check TOKEN"),
        (("--user", "ann", "--check", "x"), "give either --user NAME, for a token, or --check TOKEN"),
        (("--user", "ann", "--ttl", "soon"), "Invalid value for '--ttl': 'soon' is not a time: give seconds"),
        (("--user", ""), "a token needs a user: give a name"),
        (("--check", "x"), "the token is refused: "),
    ],
)
def test_a_token_that_cannot_be_is_one_sentence(arguments, message):
    ended = run("token", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"fastws: {message}")
    assert ended.stderr.count("\n") == 1


def test_without_a_secret_there_are_no_tokens_and_without_rules_nothing_to_explain(file):
    file.write_text("port = 0\n")
    assert "there is no [auth]" in run("token", "--user", "ann").stderr
    assert "there are no [[channels]]" in run("explain", "--user", "ann", "--channel", "x").stderr
