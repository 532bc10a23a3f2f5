"""The configuration of file, environment and flags: what counts, where it came from, and what is wrong with it."""

from dataclasses import fields
from pathlib import Path

import pytest

from fastws.command.settings import Faults, Settings, load, option_kinds
from fastws.command.values import duration
from fastws.config import Options

SECRET = "x" * 40


def settings(tmp_path, text="", environment=None, flags=None) -> Settings:
    file = tmp_path / "fastws.toml"
    file.write_text(text)
    return load(file, environment or {}, flags or {})


def faults(tmp_path, text="", environment=None, flags=None):
    with pytest.raises(Faults) as failed:
        settings(tmp_path, text, environment, flags)
    return [sentence.replace(f"{tmp_path}/", "") for sentence in failed.value.sentences]


def sources(found):
    return {".".join(map(str, path)): str(source).rpartition("/")[2] for path, source in found.sources.items()}


def wrong(name, value):
    """What an option's own declaration says of a wrong value."""
    metadata = Options.__dataclass_fields__[name].metadata
    assert metadata["check"](value)
    return f"{name}={metadata['show'](value)}{metadata['check'](value)}"


# -- what counts


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    text = "port = 1\nmax_backlog = 1\nflush_threads = 1\n[log]\nlevel = 'error'\n"
    environment = {"FASTWS_PORT": "2", "FASTWS_MAX_BACKLOG": "2", "FASTWS_LOG_LEVEL": "warning"}
    found = settings(tmp_path, text, environment, {"port": 3, "log_level": "info"})
    assert found.options == {"port": 3, "max_backlog": 2, "flush_threads": 1}
    assert found.log.level == "info"
    assert sources(found) == {
        "port": "flag --port",
        "max_backlog": "env FASTWS_MAX_BACKLOG",
        "flush_threads": "fastws.toml:3",
        "log.level": "flag --log-level",
    }


def test_an_empty_variable_is_not_set(tmp_path):
    assert settings(tmp_path, "port = 1\n", {"FASTWS_PORT": ""}).options == {"port": 1}


def test_the_variable_port_counts_where_there_is_no_fastws_port(tmp_path):
    assert settings(tmp_path, "port = 1\n", {"PORT": "2"}).options == {"port": 2}
    assert settings(tmp_path, "port = 1\n", {"PORT": "2", "FASTWS_PORT": "3"}).options == {"port": 3}


def test_without_a_file_there_may_be_none_but_a_named_one_must_be_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(None, {}, {}).is_empty
    tmp_path.joinpath("fastws.toml").write_text("port = 1\n")
    assert load(None, {}, {}).options == {"port": 1}
    with pytest.raises(Faults) as failed:
        load(Path("other.toml"), {}, {})
    assert str(failed.value) == "other.toml cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("environment", "is_empty"),
    [({"FASTWS_PORT": "80", "FASTWS_LOG_LEVEL": "info"}, True), ({"FASTWS_CHANNELS": '[{"pattern": "*"}]'}, False)],
)
def test_a_section_in_the_environment_is_a_configuration_and_an_option_is_not(environment, is_empty):
    assert load(None, environment, {}).is_empty is is_empty


@pytest.mark.parametrize(
    ("environment", "read"),
    [
        ({"FASTWS_ORIGINS": "https://a.example https://b.example"}, ["https://a.example", "https://b.example"]),
        ({"FASTWS_ORIGINS": '["https://a.example"]'}, ["https://a.example"]),
    ],
)
def test_lists_are_words_or_json(tmp_path, environment, read):
    assert settings(tmp_path, "", environment).options == {"origins": read}


def test_tables_of_arrays_are_json(tmp_path):
    environment = {
        "FASTWS_CHANNELS": '[{"pattern": "a.*", "presence": true}, {"pattern": "b.*"}]',
        "FASTWS_API_KEYS": f'[{{"name": "shop", "key": "{SECRET}"}}]',
    }
    found = settings(tmp_path, "", environment)
    assert [(rule.pattern, rule.presence) for rule in found.channels] == [("a.*", True), ("b.*", False)]
    assert [key.name for key in found.api.keys] == ["shop"]


def test_variables_make_sections_and_complete_those_of_the_file(tmp_path):
    text = "[hooks]\nurl = 'http://127.0.0.1/'\ntimeout = 1\n"
    found = settings(tmp_path, text, {"FASTWS_HOOKS_TIMEOUT": "2", "FASTWS_HOOKS_ASK": "connect call"})
    assert (found.hooks.url, found.hooks.timeout, found.hooks.ask) == ("http://127.0.0.1/", 2, ("connect", "call"))
    found = settings(tmp_path, "", {"FASTWS_HOOKS_URL": "http://127.0.0.1/"})
    assert found.hooks.timeout == 3
    assert (found.api, found.auth) == (None, None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("1m30s", 90), ("250ms", 0.25), ("1d2h", 93600), ("0.5h", 1800)]
)
def test_durations_are_numbers_or_texts_with_units(tmp_path, text, seconds):
    assert duration(text) == seconds
    assert settings(tmp_path, "", {"FASTWS_IDLE_TIMEOUT": text}).options == {"idle_timeout": seconds}
    assert settings(tmp_path, f"idle_timeout = '{text}'").options == {"idle_timeout": seconds}


@pytest.mark.parametrize("text", ["", "m", "1x", "s1", "30s1m", "1m1m", "-1m", "nan", "inf", "1 m"])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match=r"^(?!.*group)"):
        duration(text)


def test_every_duration_is_told_by_its_help():
    seconds = {option.name for option in fields(Options) if option.metadata["help"].startswith("seconds")}
    assert seconds == {name for name in option_kinds() if name.endswith(("_timeout", "_interval", "_after"))}


@pytest.mark.parametrize("written", ["600", "0o600", "'600'", "'0o600'"])
def test_permissions_are_octal_however_they_are_written(tmp_path, written):
    assert settings(tmp_path, f"uds_permissions = {written}").options == {"uds_permissions": 0o600}


@pytest.mark.parametrize("text", ["true", "TRUE", "yes", "on", "1"])
def test_what_says_yes(tmp_path, text):
    assert settings(tmp_path, "", {"FASTWS_RESTART": text}).options == {"restart": True}


# -- what is wrong


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = 70000", f"fastws.toml:1: {wrong('port', 70000)}"),
        ("\nport = 'abc'", f"fastws.toml:2: {wrong('port', 'abc')}"),
        ("port = true", f"fastws.toml:1: {wrong('port', True)}"),
        ("prot = 1", "fastws.toml:1: 'prot' is not an option: did you mean port?"),
        ("max_message_rate = '1m'", f"fastws.toml:1: {wrong('max_message_rate', '1m')}"),
        ("idle_timeout = '1 minute'", f"fastws.toml:1: {wrong('idle_timeout', '1 minute')}"),
        ("overflow = 'drop'", f"fastws.toml:1: {wrong('overflow', 'drop')}"),
        ("restart = 'perhaps'", f"fastws.toml:1: {wrong('restart', 'perhaps')}"),
        ("restart = 1", f"fastws.toml:1: {wrong('restart', 1)}"),
        ("origins = [1]", f"fastws.toml:1: {wrong('origins', [1])}"),
        ("anonymous = 'perhaps'", "fastws.toml:1: anonymous='perhaps' must be true or false"),
        ("host = 5", f"fastws.toml:1: {wrong('host', 5)}"),
        ("ssl_client_cert = 'yes'", "fastws.toml:1: ssl_client_cert='yes': choose optional or required"),
        ("uds_permissions = 999", f"fastws.toml:1: {wrong('uds_permissions', 999)}"),
        ("[hoks]\nurl = 'x'", "fastws.toml:1: [hoks] is not a section: did you mean hooks?"),
        ("log = 1", "fastws.toml:1: log=1 must be a section, [log]"),
        ("[log]\nlevel = 'loud'", "fastws.toml:2: [log] level='loud': choose critical, debug, error, info or warning"),
        ("[log]\nlevl = 'info'", "fastws.toml:2: [log] 'levl': did you mean level?"),
        ("[log]\nzzz = 1", "fastws.toml:2: [log] 'zzz': choose from access, format, level"),
        ("[log]\naccess = 3", "fastws.toml:2: [log] access=3 must be true or false"),
        ("[hooks]\ntimeout = 3", "fastws.toml:1: [hooks] url is missing: add url = ..."),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\ntimeout = '5m'",
            "fastws.toml:3: [hooks] timeout=300.0 is out of range: use 0.05 to 60",
        ),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\ntimeout = 'xx'",
            "fastws.toml:3: [hooks] timeout='xx' must be seconds as a number, or a text such as \"1m30s\", 0.05 to 60",
        ),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\ntimout = 3",
            "fastws.toml:3: [hooks] 'timout': did you mean timeout?",
        ),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\nask = ['conect']",
            "fastws.toml:3: [hooks] ask=['conect']: choose from call, connect, publish and subscribe",
        ),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\nconcurrency = 1.5",
            "fastws.toml:3: [hooks] concurrency=1.5 must be a whole number, 1 to 10,000",
        ),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\nsecret = 5",
            "fastws.toml:3: [hooks] secret=******** must be a text",
        ),
        (
            "[hooks]\nurl = 'http://127.0.0.1/'\nsecret = 'a'\nsecret_file = 'b'",
            "fastws.toml:4: [hooks] secret and secret_file say the same: give one of them",
        ),
        (
            "[hooks]\nurl = 'http://a'",
            "fastws.toml:2: [hooks] url='http://a' needs a secret, as a is not this machine: set secret or secret_file",
        ),
        ("channels = 1", "fastws.toml:1: channels=1 must be a list of tables, [[channels]]"),
        ("[channels]\npattern = 'x'", 'fastws.toml:1: channels={pattern = "x"} must be a list of tables, [[channels]]'),
        ("[[channels]]\nsubscribe = 'user'", "fastws.toml:1: [[channels]] pattern is missing: add pattern = ..."),
        (
            "[[channels]]\npattern = 'a'\n[[channels]]\npattern = 'b'\nsubscribe = 'users'",
            "fastws.toml:5: [[channels]] subscribe='users': choose anyone, hook, nobody, token or user",
        ),
        ("[[channels]]\npattern = ''", "fastws.toml:2: [[channels]] pattern='' must be a text that is not empty"),
        (
            "[[channels]]\npattern = 'a'\nmax_subscribers = 0",
            "fastws.toml:3: [[channels]] max_subscribers=0 is out of range: use 1 or more",
        ),
        (
            "[api]\n[[api.keys]]\nname = 'shop'\nkey = 'abcdefghijklmnopqrst'\nalow = ['read']",
            "fastws.toml:5: [[api.keys]] 'alow': did you mean allow?",
        ),
        (
            "[api]\n[[api.keys]]\nkey = 'abcdefghijklmnopqrst'",
            "fastws.toml:2: [[api.keys]] name is missing: add name = ...",
        ),
        (
            "[[api.keys]]\nname = 'a'\nkey = 'b'\nallow = ['write']",
            "fastws.toml:4: [[api.keys]] allow=['write']: choose from broadcast, close, read, send and subscribe",
        ),
        (
            "[auth]\nuser_claim = 'sub'",
            "fastws.toml:1: [auth] has no key: give one of secret, secret_file, jwks_url, public_key_file",
        ),
        (
            "[raw]\npath = '/raw'",
            "fastws.toml:2: [raw] path='/raw': it needs {channel} and no other name, as in '/raw/{channel}'",
        ),
        ("port = ", "fastws.toml:1: Invalid value (column 8)"),
    ],
)
def test_a_wrong_value_of_the_file_is_a_sentence_that_says_where_and_what_to_do(tmp_path, text, sentence):
    assert faults(tmp_path, text) == [sentence]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"FASTWS_PORT": "abc"}, f"FASTWS_PORT: {wrong('port', 'abc')}"),
        ({"PORT": "tcp://10.0.0.1:80"}, f"PORT: {wrong('port', 'tcp://10.0.0.1:80')}"),
        ({"FASTWS_FD": "3 x"}, f"FASTWS_FD: {wrong('fd', [3, 'x'])}"),
        ({"FASTWS_HOOKS_TIMOUT": "3"}, "FASTWS_HOOKS_TIMOUT: [hooks] 'timout': did you mean timeout?"),
        ({"FASTWS_LOG_ACCESS": "perhaps"}, "FASTWS_LOG_ACCESS: [log] access='perhaps' must be true or false"),
        ({"FASTWS_CHANNELS": "[{"}, "FASTWS_CHANNELS: channels is not JSON: Input data was truncated"),
        ({"FASTWS_CHANNELS": "{}"}, "FASTWS_CHANNELS: channels={} must be a list of tables, [[channels]]"),
        (
            {"FASTWS_CHANNELS": '[{"pattern": "a", "publish": "x"}]'},
            "FASTWS_CHANNELS: [[channels]] publish='x': choose anyone, hook, member, nobody, token or user",
        ),
    ],
)
def test_a_wrong_variable_is_named(tmp_path, environment, sentence):
    assert sentence in faults(tmp_path, "", environment)


def test_a_wrong_flag_needs_no_place(tmp_path):
    assert faults(tmp_path, "port = 1", flags={"port": 70000}) == [wrong("port", 70000)]


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    assert len(faults(tmp_path, "port = -1\nhots = ''\n[log]\nlevel = 1\n", {"FASTWS_FD": "x"})) == 4


def test_a_file_that_is_no_utf_8_is_one_sentence(tmp_path):
    file = tmp_path / "fastws.toml"
    file.write_bytes(b"host = '\xff'")
    with pytest.raises(Faults, match=r"fastws.toml is not UTF-8: save it as that"):
        load(file, {}, {})
