"""Logs: JSON, levels, and a line for each handshake and each close."""

import json
import signal
import sys

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastws import Listener

from ..lib.command import port_of, run, serving
from ..lib.lines import Lines

pytestmark = pytest.mark.usefixtures("folder")


def test_each_handshake_and_each_close_is_a_line(folder):
    with serving("app:create", "--access-log") as (process, line):
        lines, url = Lines(process.stderr), f"ws://127.0.0.1:{port_of(line)}"
        with connect(f"{url}/echo?token=secret", user_agent_header='Agent "5"') as client:
            client.send("hi")
            assert client.recv() == "hi"
        with pytest.raises(InvalidStatus):
            connect(f"{url}/nowhere")
        lines.until("closed")
        lines.until("/nowhere 404")
    access = [line.partition("INFO fastws.access: ")[2].strip() for line in lines.all if "fastws.access" in line]
    assert "closed 1000 after 0 s, in 1, out 1" in access[1] + access[2]
    assert access[0] == '- 127.0.0.1 /echo 101 "Agent ?5?"'
    assert any(line.startswith("- 127.0.0.1 /nowhere 404 ") for line in access)
    assert "secret" not in "".join(lines.all)


@pytest.mark.parametrize("arguments", [(), ("--log-level", "debug"), ("--access-log", "--no-access-log")])
def test_it_is_off_unless_it_is_asked_for(arguments):
    with serving("app:create", *arguments) as (process, line):
        with connect(f"ws://127.0.0.1:{port_of(line)}/echo"):
            pass
        process.send_signal(signal.SIGTERM)
        assert "fastws.access" not in process.stderr.read()


def test_lines_may_be_json_with_what_they_are_about(folder):
    with serving("app:create", "--log-format", "json", "--access-log") as (process, line):
        lines, url = Lines(process.stderr), f"ws://127.0.0.1:{port_of(line)}"
        with pytest.raises(InvalidStatus):
            connect(f"{url}/nowhere", origin="https://a.example")
        with connect(f"{url}/echo"):
            pass
        closed = json.loads(lines.until("closed"))
        refused = json.loads(lines.until("refused"))
        access = json.loads(lines.until('"fastws.access"'))
    assert refused["level"] == "WARNING"
    assert refused["logger"] == "fastws.server"
    assert refused["time"]
    assert (refused["status"], refused["origin"], len(refused["request_id"])) == (404, "https://a.example", 16)
    assert refused["request_id"] in refused["message"]
    assert (access["status"], access["remote_address"][0], access["path"]) == (404, "127.0.0.1", "/nowhere")
    assert (closed["code"], closed["endpoint"], closed["user"]) == (1000, "/echo", None)


def test_a_traceback_is_within_its_line(folder):
    app = folder.joinpath("app.py")
    app.write_text(app.read_text().replace("return message", "raise ValueError(message)"))
    with serving("app:create", "--log-format", "json") as (process, line):
        lines = Lines(process.stderr)
        with connect(f"ws://127.0.0.1:{port_of(line)}/echo") as client:
            client.send("why not")
            assert "ValueError: why not" in json.loads(lines.until("a handler of /echo failed"))["exc_info"]


def test_without_the_package_it_says_what_to_install():
    code = "import sys; sys.modules['pythonjsonlogger'] = None; from fastws.command.main import main; main()"
    ended = run("-c", code, "serve", "app:create", "--log-format", "json", command=[sys.executable])
    assert (ended.returncode, ended.stderr) == (
        2,
        "fastws: [log] format='json' needs python-json-logger: pip install 'fastws-server[server]'\n",
    )


async def test_in_the_library_a_level_turns_it_on(serve, join, caplog):
    class Named(Listener):
        def on_handshake(self, request):
            request.user = "ann\nbob"

    site = await serve(Named())
    await (await join(f"{site.url}/ws/cars")).close()
    assert [record for record in caplog.records if record.name == "fastws.access"] == []
    caplog.set_level("INFO", "fastws.access")
    client = await join(f"{site.url}/ws/cars")
    assert [record.message.partition(" 101")[0] for record in caplog.records if record.name == "fastws.access"] == [
        "ann?bob 127.0.0.1 /ws/cars"
    ]
    await client.close()
