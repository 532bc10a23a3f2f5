"""The command line, in a separate process."""

import signal
import socket
import sys
from dataclasses import fields
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from fastws import Listener, Server, __version__
from fastws.config import Options

from ..lib.command import APP, TIMEOUT, port_of, run, serving
from ..lib.support import unused_port

pytestmark = pytest.mark.usefixtures("folder")


def test_the_demo_is_the_chat_page_and_a_relay():
    with serving("--port", "0", subcommand="demo") as (_, line):
        port = port_of(line)
        assert line.startswith(f"fastws listening on http://127.0.0.1:{port}  (ws://127.0.0.1:{port}/ws/chat/{{room}}")
        with urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT) as page:
            assert b"<html" in page.read()
        with connect(f"ws://127.0.0.1:{port}/ws/news") as one, connect(f"ws://127.0.0.1:{port}/ws/news") as other:
            one.send("to all")
            assert one.recv(TIMEOUT) == other.recv(TIMEOUT) == "to all"


@pytest.mark.parametrize("target", ["app:group.server", "app:create"])
def test_it_serves_the_server_or_the_factory_that_is_named(target):
    with serving(target) as (_, line), connect(f"ws://127.0.0.1:{port_of(line)}/echo") as client:
        client.send("hi")
        assert client.recv(TIMEOUT) == "hi"


def test_the_console_script_is_the_same():
    script = Path(sys.executable).with_name("fastws")
    with serving("app:create", command=[script]) as (_, line):
        assert port_of(line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_closes_connections_with_1001_and_ends_with_status_0(number):
    with serving("app:create") as (process, line), connect(f"ws://127.0.0.1:{port_of(line)}/echo") as client:
        process.send_signal(number)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(TIMEOUT)
        assert closed.value.rcvd.code == 1001
        assert process.wait(TIMEOUT) == 0
        assert process.stderr.read() == ""


def test_with_restart_a_signal_closes_connections_with_1012():
    with serving("app:create", "--restart") as (process, line):
        with connect(f"ws://127.0.0.1:{port_of(line)}/echo") as client:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIMEOUT)
            assert closed.value.rcvd.code == 1012
        assert process.wait(TIMEOUT) == 0


def test_restart_may_stand_in_the_environment_or_in_the_file(folder, monkeypatch):
    def code():
        with serving("app:create") as (process, line), connect(f"ws://127.0.0.1:{port_of(line)}/echo") as client:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIMEOUT)
            return closed.value.rcvd.code

    folder.joinpath("fastws.toml").write_text("restart = true\n")
    assert code() == 1012
    monkeypatch.setenv("FASTWS_RESTART", "false")
    assert code() == 1001


def test_the_demo_tells_whether_it_is_ready():
    with (
        serving("--port", "0", subcommand="demo") as (_, line),
        urlopen(f"http://127.0.0.1:{port_of(line)}/ready", timeout=TIMEOUT) as answer,
    ):
        assert answer.read() == b'{"ready":true}'


def test_the_demo_takes_origins_besides_its_own_and_clients_without_one():
    with serving("--port", "0", "--origins", "https://chat.example.org", subcommand="demo") as (_, line):
        url = f"ws://127.0.0.1:{port_of(line)}/ws/news"
        for origin in (None, "https://chat.example.org", f"http://127.0.0.1:{port_of(line)}"):
            with connect(url, origin=origin) as client:
                client.send("hi")
                assert client.recv(TIMEOUT) == "hi"
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, origin="https://evil.example")


@pytest.fixture
def ports():
    with unused_port() as one, unused_port() as two, unused_port() as three:
        yield one, two, three


def test_an_option_beats_the_environment_which_beats_the_file(folder, monkeypatch, ports):
    folder.joinpath("fastws.toml").write_text(f'port = {ports[0]}\ntarget = "app:create"\n')
    with serving() as (_, line):
        assert port_of(line) == ports[0]
    monkeypatch.setenv("FASTWS_PORT", str(ports[1]))
    with serving() as (_, line):
        assert port_of(line) == ports[1]
    with serving("--port", str(ports[2])) as (_, line):
        assert port_of(line) == ports[2]


def test_the_log_level_is_what_was_asked_for():
    for level, is_logged in (("info", True), ("error", False)):
        with serving("app:create", "--log-level", level) as (process, line):
            with pytest.raises(HTTPError, match="404") as refused:
                urlopen(f"http://127.0.0.1:{port_of(line)}/", timeout=TIMEOUT)
            refused.value.close()
            process.send_signal(signal.SIGTERM)
            assert ("404" in process.stderr.read()) is is_logged


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "nothing:server"], "no module 'nothing' here or on Python's path"),
        (["serve", "app.more:server"], "no module 'app.more' here or on Python's path"),
        (["serve", "app:nothing"], "'app' has no attribute 'nothing'"),
        (["serve", "app"], "'app' does not name a server: write module:attribute, as in app:server"),
        (["serve", ".app:create"], "'.app:create' does not name a server: write module:attribute, as in app:server"),
        (["serve", "app:number"], "'app:number' is 5: it must be a fastws.Server, an ASGI application, or a function"),
        (["serve", "app:needs"], "'app:needs' is <function needs"),
        (["serve", "--port", "abc"], "Invalid value for '--port': 'abc' is not a valid integer."),
        (["serve", "--port", "70000"], "port=70000 is out of range: use 0 to 65,535"),
        (["serve", "app:create", "--port", "70000"], "port=70000 is out of range: use 0 to 65,535"),
        (["serve", "--overflow", "perhaps"], "Invalid value for '--overflow': 'perhaps' is not one of"),
        (["serve", "--log-level", "loud"], "Invalid value for '--log-level': 'loud' is not one of"),
        (["serve", "--drain-rate", "-1"], "drain_rate=-1.0 is out of range: use 0 or more"),
        (["serve", "--ready-path", "ready"], "ready_path='ready' must be a path that begins with a slash"),
        (["serve", "--nothing"], "No such option '--nothing'."),
        (["nothing"], "No such command 'nothing'."),
    ],
)
def test_what_cannot_work_is_one_sentence_and_status_2(arguments, message):
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"fastws: {message}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = ", "fastws.toml:1: Invalid value (column 8)"),
        ("prot = 1", "fastws.toml:1: 'prot' is not an option: did you mean port?"),
        ("port = [1]", "fastws.toml:1: port=[1]"),
    ],
)
def test_a_file_that_cannot_work_is_one_sentence_and_status_2(folder, text, message):
    folder.joinpath("fastws.toml").write_text(text)
    ended = run("serve")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"fastws: {message}")
    assert ended.stderr.count("\n") == 1


def test_a_taken_port_is_one_sentence_and_status_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("demo", "--port", str(port))
    assert ended.returncode == 1
    assert ended.stderr == f"fastws: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_taken_port_is_that_of_the_option_where_the_application_has_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("serve", "app:create", "--port", str(port))
    assert ended.stderr == f"fastws: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_module_that_itself_misses_one_shows_where(folder):
    folder.joinpath("app.py").write_text("import nothing_like_that")
    ended = run("serve", "app:server")
    assert ended.returncode == 1
    assert "app.py" in ended.stderr
    assert ended.stderr.endswith("No module named 'nothing_like_that'\n")


def test_every_option_that_text_can_say_is_on_the_command_line():
    said = run("serve", "--help").stdout
    for option in fields(Options):
        if option.name not in ("ssl", "http", "sessions", "auth", "logs"):
            assert f"--{option.name.replace('_', '-')} " in said


def test_options_reach_the_endpoints_that_have_none_of_their_own():
    server = Server(port=0)
    plain = server.endpoint("/plain", Listener())
    own = server.endpoint("/own", Listener(), idle_timeout=7)
    server.reconfigure(idle_timeout=60.0, port=81)
    assert (server.options.port, server.options.idle_timeout) == (81, 60.0)
    assert (plain.options.idle_timeout, own.options.idle_timeout) == (60.0, 7)


@pytest.mark.parametrize("size", [1024 * 1024, 7])
def test_an_endpoint_keeps_what_it_was_given_even_where_that_is_the_default(folder, size):
    """The command line sets the other options; those given to an endpoint are not compared with defaults."""
    folder.joinpath("app.py").write_text(
        f"{APP}\nserver = create()\nserver.endpoint('/own', Echo(), max_message_size={size})\n"
    )
    with serving("app:server", "--max-message-size", "3") as (_, line):
        with connect(f"ws://127.0.0.1:{port_of(line)}/own") as own:
            own.send("x" * 7)
            assert own.recv(TIMEOUT) == "x" * 7
        with connect(f"ws://127.0.0.1:{port_of(line)}/echo") as other:
            other.send("x" * 7)
            with pytest.raises(ConnectionClosed) as closed:
                other.recv(TIMEOUT)
            assert closed.value.rcvd.code == 1009


def test_the_demo_takes_options_as_well():
    with serving("--port", "0", "--ready-path", "/up", "--max-message-size", "3", subcommand="demo") as (_, line):
        with urlopen(f"http://127.0.0.1:{port_of(line)}/up", timeout=TIMEOUT) as answer:
            assert answer.status == 200
        with connect(f"ws://127.0.0.1:{port_of(line)}/ws/news") as client:
            client.send("long")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(TIMEOUT)
            assert closed.value.rcvd.code == 1009


def test_it_tells_its_version():
    assert run("--version").stdout.startswith(f"fastws {__version__} with CPython 3.")


def test_without_a_command_it_shows_its_help():
    ended = run()
    assert ended.returncode == 0
    assert "serve" in ended.stdout


def test_without_click_it_says_what_to_install():
    code = "import sys; sys.modules['click'] = None; import fastws.command.main"
    ended = run("-c", code, command=[sys.executable])
    assert ended.returncode == 1
    assert ended.stderr == "fastws: the command line needs click: pip install 'fastws-server[server]'\n"
