"""The files in deploy/: what they name is there, and the programs that they are for take them."""

import json
import re
import shlex
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import pytest
import yaml
from click import Command, Context
from websockets.sync.client import connect

from fastws import Server
from fastws.command.main import cli
from fastws.command.running import seconds_to_stop
from fastws.command.settings import load
from fastws.web import health

from ..lib.command import TIMEOUT, port_of, serving

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SECRETS = {"HOOKS_SECRET": "whsec_" + "A" * 44, "FASTWS_KEY": "k" * 32}

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
WITH_REDIS = yaml.safe_load((DEPLOY / "compose.redis.yml").read_text())
DEPLOYMENT, SERVICE = yaml.safe_load_all((DEPLOY / "k8s.yaml").read_text())
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


def needs(tool):
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"optional: {tool} is not installed")


needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def unit(name):
    """The settings of a unit, by name; the last of several."""
    return dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / name).read_text(), re.MULTILINE))


def command_lines():
    """Each command of fastws in the files, and where it is."""
    for form in ("HEALTHCHECK.*CMD", "CMD"):
        for words in re.findall(rf"^{form} (\[.*\])$", DOCKERFILE, re.MULTILINE):
            yield "Dockerfile", [word for word in json.loads(words) if word != "fastws"]
    yield "k8s.yaml", CONTAINER["args"]
    yield "fastws.service", shlex.split(unit("fastws.service")["ExecStart"])[1:]
    for name in ("fastws.service", "k8s.yaml"):
        for words in re.findall(r"^#.*\bfastws (init [^&\n]*)", (DEPLOY / name).read_text(), re.MULTILINE):
            yield name, shlex.split(words)


@pytest.mark.parametrize(("file", "words"), list(command_lines()))
def test_every_command_line_is_one(file, words):
    name, *rest = words
    command = cli.get_command(Context(cli), name)
    assert isinstance(command, Command)
    command.make_context(name, rest, resilient_parsing=False)


def test_every_kind_of_file_has_commands():
    assert {file for file, _ in command_lines()} == {"Dockerfile", "k8s.yaml", "fastws.service"}


# -- settings in the environment


def test_the_image_sets_options_that_there_are():
    line = re.search(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)[1]
    environment = dict(word.split("=", 1) for word in line.split())
    options = load(Path("/dev/null"), environment, {}).options
    assert options == {"host": "0.0.0.0", "ready_path": "/ready", "restart": True}
    assert len(options) == sum(name.startswith("FASTWS_") for name in environment)


def test_the_image_exposes_and_asks_the_port_that_is_listened_on():
    port = Server().options.port
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert f"http://127.0.0.1:{port}/ready" in DOCKERFILE


def test_the_image_installs_extras_that_there_are_of_files_that_there_are():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r"\.whl\)\[(.*)\]", DOCKERFILE)[1].split(",")
    # `reload` is for development; the others are in `server`, or for a server of one's own
    assert set(asked) == {"hooks", "jwt", "metrics", "redis", "server"} <= extras.keys()
    for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line


def interpolated(value):
    return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: SECRETS[found[1]], str(value))


def test_compose_configures_a_server_that_can_be_made():
    service = COMPOSE["services"]["fastws"]
    environment = {name: interpolated(value) for name, value in service["environment"].items()}
    settings = load(None, environment, {})
    assert {name.lower().removeprefix("fastws_") for name in environment} == {
        "_".join(path) for path, source in settings.sources.items() if source.kind == "env"
    }
    assert settings.hooks.secret == SECRETS["HOOKS_SECRET"]
    assert settings.channels[0].subscribe == "hook"
    assert [key.key for key in settings.api.keys] == [SECRETS["FASTWS_KEY"]]


def test_compose_with_redis_configures_workers_that_share_one_with_the_policy_that_fastws_needs():
    both = COMPOSE["services"]["fastws"]["environment"] | WITH_REDIS["services"]["fastws"]["environment"]
    settings = load(None, {name: interpolated(value) for name, value in both.items()}, {})
    (service,) = WITH_REDIS["services"].keys() - COMPOSE["services"].keys()
    assert settings.options["backplane"] == f"redis://{service}:6379"
    assert WITH_REDIS["services"]["fastws"]["depends_on"].keys() == {service}
    assert settings.top.workers == 2
    assert settings.channels[0].history == 1000
    assert "--maxmemory-policy noeviction" in WITH_REDIS["services"][service]["command"]
    assert {volume.split(":")[0] for volume in WITH_REDIS["services"][service]["volumes"]} == WITH_REDIS[
        "volumes"
    ].keys()


def test_compose_names_files_that_there_are():
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.split(":")[0]).is_file(), name
        if "build" in service:
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_compose_gives_the_backend_the_secret_and_the_port_that_fastws_asks():
    environment = COMPOSE["services"]["backend"]["environment"]
    script = (DEPLOY / COMPOSE["services"]["backend"]["volumes"][0].split(":")[0]).read_text()
    assert all(f'"{name}"' in script for name in environment)
    assert COMPOSE["services"]["fastws"]["environment"]["FASTWS_HOOKS_URL"].endswith(f":{environment['PORT']}/")


def test_kubernetes_sets_options_that_there_are():
    environment = {entry["name"]: entry["value"] for entry in CONTAINER["env"]}
    settings = load(Path("/dev/null"), environment, {})
    assert {str(source).removeprefix("env ") for source in settings.sources.values()} == environment.keys()
    assert settings.options["port"] == CONTAINER["ports"][0]["containerPort"]


def test_kubernetes_asks_the_path_and_the_port_that_are_there():
    options = load(Path("/dev/null"), {entry["name"]: entry["value"] for entry in CONTAINER["env"]}, {}).options
    names = {port["name"] for port in CONTAINER["ports"]}
    for probe, path in (("readinessProbe", options["ready_path"]), ("livenessProbe", health.ALIVE)):
        assert CONTAINER[probe]["httpGet"]["path"] == path
        assert CONTAINER[probe]["httpGet"]["port"] in names
    assert SERVICE["spec"]["ports"][0]["targetPort"] in names
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == SERVICE["spec"]["selector"] == labels
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert {volume["name"] for volume in POD["volumes"]} == mounts.keys()
    assert CONTAINER["args"][-1].startswith(mounts["configuration"])


def test_everybody_waits_longer_than_a_stop_takes():
    longest = seconds_to_stop(Server())
    before = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert POD["terminationGracePeriodSeconds"] == before + longest
    assert int(unit("fastws.service")["TimeoutStopSec"]) >= longest
    assert int(COMPOSE["services"]["fastws"]["stop_grace_period"].removesuffix("s")) >= longest


# -- systemd


@needs("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path):
    for name in ("fastws.service", "fastws.socket"):
        text = (DEPLOY / name).read_text().replace("/opt/fastws/bin/fastws", shutil.which("true"))
        tmp_path.joinpath(name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "fastws.service", tmp_path / "fastws.socket"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_speaks_of_what_fastws_does():
    service = unit("fastws.service")
    assert (service["Type"], service["ExecReload"]) == ("notify", "/bin/kill -HUP $MAINPID")
    assert service["Requires"] == "fastws.socket"
    assert load(Path("/dev/null"), dict([service["Environment"].split("=")]), {}).options == {"restart": True}
    assert unit("fastws.socket")["ListenStream"] == f"127.0.0.1:{Server().options.port}"


# -- proxies


@needs_nginx
def test_nginx_takes_its_file(tmp_path):
    done = subprocess.run(
        [NGINX, "-t", "-q", "-p", tmp_path, "-c", DEPLOY / "nginx.conf", "-g", f"pid {tmp_path}/pid;"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@needs_nginx
@pytest.mark.usefixtures("folder")
def test_a_websocket_gets_through_nginx(tmp_path, unused_tcp_port):
    text = (DEPLOY / "nginx.conf").read_text()
    with serving("app:create") as (_, line):
        text = text.replace("listen 80;", f"listen 127.0.0.1:{unused_tcp_port};")
        text = text.replace("server 127.0.0.1:8765;", f"server 127.0.0.1:{port_of(line)};")
        tmp_path.joinpath("nginx.conf").write_text(f"error_log stderr;\npid {tmp_path}/pid;\ndaemon off;\n{text}")
        for directive in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            tmp_path.joinpath(directive).mkdir()
        with subprocess.Popen(
            [NGINX, "-p", tmp_path, "-c", tmp_path / "nginx.conf"], stderr=subprocess.PIPE, text=True
        ) as nginx:
            try:
                with connected(f"ws://127.0.0.1:{unused_tcp_port}/echo") as client:
                    client.send("hi")
                    assert client.recv(TIMEOUT) == "hi"
            finally:
                nginx.terminate()
                nginx.communicate(timeout=TIMEOUT)


def connected(url):
    """A connection, as soon as somebody listens."""
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            return connect(url)
        except ConnectionRefusedError:
            assert time.monotonic() < end, f"nobody listens at {url}"
            time.sleep(0.02)


def test_both_proxies_lead_to_the_port_that_is_listened_on():
    for name in ("nginx.conf", "Caddyfile"):
        assert f"127.0.0.1:{Server().options.port}" in (DEPLOY / name).read_text()


def test_caddys_file_has_its_braces_in_pairs_and_known_directives():
    text = re.sub(r"#.*", "", (DEPLOY / "Caddyfile").read_text())
    assert text.count("{") == text.count("}")
    words = {line.split()[0] for line in text.splitlines() if line.strip() and line.strip() != "}"}
    assert words == {"ws.example.org", "respond", "reverse_proxy", "stream_close_delay"}
