"""`fastws init`: what it writes runs as it stands."""

import re
import stat

import pytest

from fastws.command.settings import load

from ..lib.command import COMMAND, port_of, run, serving
from ..lib.fast import hear, publish, say, subscribed

pytestmark = pytest.mark.usefixtures("folder")


def test_what_it_writes_runs_and_a_published_message_arrives(tmp_path):
    ended = run("init")
    assert (ended.returncode, ended.stderr) == (0, "")
    key = load(tmp_path / "fastws.toml", {}, {}).api.keys[0].key
    token = run("token", "--user", "ann").stdout.strip()
    with serving("--port", "0") as (_, line):
        port = port_of(line)
        with subscribed(port, "public.news") as stranger, subscribed(port, "room.1", token=token) as ann:
            assert (stranger.answer["type"], ann.answer["type"]) == ("subscribed", "subscribed")
            assert publish(port, key, "public.news", "hello") == {"connections": 1}
            assert hear(stranger)["message"] == "hello"
            say(stranger, {"type": "subscribe", "id": 1, "channel": "room.1"})
            assert hear(stranger)["code"] == "unauthenticated"


def test_a_file_is_for_its_owner_alone_with_secrets_of_its_own(tmp_path):
    generous = ["sh", "-c", 'umask 0; exec "$@"', "sh", *COMMAND]
    for name in ("one", "two"):
        assert run("init", name, command=generous).returncode == 0
        assert stat.S_IMODE(tmp_path.joinpath(name).stat().st_mode) == 0o600
    secrets = [
        set(re.findall(r'^#? ?(?:key|secret) = "([^"]{30,})"', tmp_path.joinpath(name).read_text(), re.MULTILINE))
        for name in ("one", "two")
    ]
    assert len(secrets[0]) == len(secrets[1]) == 4
    assert not secrets[0] & secrets[1]


def test_a_file_that_is_there_stays(tmp_path):
    tmp_path.joinpath("fastws.toml").write_text("port = 1\n")
    ended = run("init")
    assert (ended.returncode, ended.stderr) == (
        2,
        "fastws: fastws.toml is there already: move it away, or name another file\n",
    )
    assert tmp_path.joinpath("fastws.toml").read_text() == "port = 1\n"


def test_where_nothing_can_be_written_it_says_so():
    ended = run("init", "nowhere/fastws.toml")
    assert (ended.returncode, ended.stderr) == (
        2,
        "fastws: nowhere/fastws.toml cannot be written: No such file or directory\n",
    )


def test_what_is_commented_out_works_too(tmp_path):
    """But for the certificate, which is not there, and what only the file of somebody's own could say."""
    run("init")
    text = tmp_path.joinpath("fastws.toml").read_text()
    uncommented = re.sub(r"^# (\[\w+\]|\w+ = .*)$", r"\1", text, flags=re.MULTILINE)
    without_tls = re.sub(r"^ssl_.*$|^\[(metrics|admin)\]$", "", uncommented, flags=re.MULTILINE)
    tmp_path.joinpath("fastws.toml").write_text(without_tls)
    assert without_tls.count("\n[") > text.count("\n[")
    found = load(tmp_path / "fastws.toml", {}, {})
    assert (found.hooks.timeout, found.raw.path, found.log.access) == (3, "/raw/{channel}", True)
    assert (found.pusher.client_events, len(found.pusher.signing_key())) == ("members", 40)
