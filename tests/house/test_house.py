"""House rules: the public names, correct types, and a clean linter."""

import ast
import graphlib
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
import typing
from dataclasses import fields
from pathlib import Path

import pytest

import fastws
import fastws.testing
from fastws.config import EndpointKeywords, EndpointOptions, OptionKeywords, Options
from tools import stub

ROOT = Path(__file__).parent.parent.parent

PUBLIC = {
    "BackplaneError",
    "ConfigurationError",
    "ConnectionManager",
    "FastWSError",
    "Headers",
    "History",
    "JWTAuth",
    "Latest",
    "Listener",
    "Position",
    "Presence",
    "ProtocolError",
    "Reject",
    "Request",
    "Server",
    "Session",
    "SignedCookieSessions",
    "StoreSessions",
    "WebSocket",
    "selftest",
}


# Slow to import, or needed only for some uses of fastws.
NEEDED_BY_FEW = {
    "aiohttp",
    "asgiref",
    "django",
    "importlib.metadata",
    "email.message",
    "zipfile",
    "click",
    "difflib",
    "email.utils",
    "fastws._selftest",
    "fastws.access",
    "fastws.asgi",
    "fastws.backplane",
    "fastws.client",
    "fastws.cluster",
    "fastws.command",
    "fastws.command.main",
    "fastws.django",
    "fastws.hooks",
    "fastws.http",
    "fastws.hub",
    "fastws.publisher",
    "fastws.pusher",
    "fastws.standalone",
    "fastws.testing",
    "fastws.v1",
    "fastws.web",
    "hiredis",
    "http.client",
    "httptools",
    "itsdangerous",
    "joserfc",
    "msgspec",
    "multiprocessing",
    "picows",
    "prometheus_client",
    "starlette",
    "tempfile",
    "urllib.request",
    "uvicorn",
    "watchfiles",
}

# What `fastws serve` is made of, which the library knows nothing of.
WINGS = ("access", "client", "command", "django", "hooks", "hub", "publisher", "pusher", "standalone", "v1", "web")


def check(*command):
    """Run a tool on the project; if it fails, its output is the message."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_public_names_are_those_of_the_design():
    assert set(fastws.__all__) - {"__version__"} == PUBLIC
    assert sorted(fastws.__all__) == sorted(set(fastws.__all__))
    assert all(hasattr(fastws, name) for name in fastws.__all__)


def test_nothing_public_is_missing_from_all():
    public = {name for name, value in vars(fastws).items() if getattr(value, "__module__", "").startswith("fastws.")}
    assert public <= set(fastws.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_has_a_docstring_of_its_own(name):
    public = getattr(fastws, name)
    assert (public.__doc__ or "").strip()
    undocumented = [
        key
        for key, value in vars(public).items()
        if callable(value) and not key.startswith("_") and not (value.__doc__ or "").strip()
    ]
    assert undocumented == []


def test_the_version_is_that_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fastws.__version__ == project["version"]


def test_an_import_brings_nothing_that_few_need():
    script = "import sys; had = set(sys.modules); import fastws; print(*sorted(set(sys.modules) - had))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    brought = set(done.stdout.split())
    assert "fastws.server" in brought
    assert brought & NEEDED_BY_FEW == set()


def test_an_import_brings_little_beside_the_loop_and_json():
    """Counted rather than timed: two thirds of the time are those of asyncio, uvloop and orjson."""
    script = (
        "import sys, asyncio, uvloop, orjson; had = set(sys.modules); import fastws; print(*set(sys.modules) - had)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    brought = set(done.stdout.split())
    ours = {module for module in brought if module.partition(".")[0] == "fastws"}
    assert len(ours) <= 22, sorted(ours)
    assert len(brought - ours) <= 10, sorted(brought - ours)


def test_the_engine_knows_no_python_module_above_it():
    for source in [ROOT / "fastws" / "_core.pyx", *(ROOT / "fastws" / "engine").rglob("*.pxi")]:
        for line in source.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert not words[1].startswith("fastws") or words[1] == "fastws.errors", line


def rooms():
    """The rooms of the engine, in the order in which _core.pyx includes them: path -> source."""
    contents = (ROOT / "fastws" / "_core.pyx").read_text()
    return {name: (ROOT / "fastws" / name).read_text() for name in re.findall(r'^include "(.+?)"', contents, re.M)}


def bare(source):
    """A room without its comments, docstrings and strings; f-strings stay, for they hold code."""
    source = re.sub(r'"""(?:.|\n)*?"""|(?<!f)"(?:[^"\\\n]|\\.)*"|(?<!f)\'(?:[^\'\\\n]|\\.)*\'', "0", source)
    return re.sub(r"[ \t]*(#.*)?$", "", source, flags=re.M)


# What defines a name of the engine's own: at the left margin, in an enum, or in a class.
DEFINITIONS = [
    r"^(?:cdef|cpdef|def|class)\b[^(=\n]*?(\w+)\(",  # functions, Python classes
    r"^cdef [^(=\n]*?(\w+)(?: = .*)?$",  # globals
    r"^([A-Za-z_]\w*) = ",
    r"^    ([A-Z][A-Z_0-9]+)(?: = .*)?$",  # constants
]
METHODS = [r"^    cdef [^(=\n]*?(\w+)\(self"]


def matches(forms, source):
    return {name for form in forms for name in re.findall(form, bare(source), re.M)}


def defined(source):
    """The names that a room defines; methods that are C functions with a dot before them."""
    return matches(DEFINITIONS, source) | {f".{name}" for name in matches(METHODS, source)}


def used(source):
    return set(re.findall(r"(?<![\w.])\w+|\.\w+(?=\()", bare(source)))


# Once our Close is queued, reading goes on for the peer's: closing has to call what calls it.
DOWNWARD = {("engine/peer/closing.pxi", ".read_on")}


def test_each_room_of_the_engine_knows_only_those_above_it():
    """Types are in _core.pxd, above all rooms. The callbacks that the loop gets, the Reactor's own, are not calls."""
    sources = list(rooms().items())
    downward = {
        (room, name)
        for place, (room, source) in enumerate(sources)
        for _, lower in sources[place + 1 :]
        for name in used(source) & defined(lower)
    }
    assert downward == DOWNWARD


def test_the_floors_are_in_their_order_and_hold_every_room():
    sources = rooms()
    floors = [name.split("/")[1] for name in sources]
    assert list(dict.fromkeys(floors)) == ["memory", "protocol", "peer", "loop"]
    assert floors == sorted(floors, key=["memory", "protocol", "peer", "loop"].index)
    assert {ROOT / "fastws" / name for name in sources} == {*(ROOT / "fastws" / "engine").rglob("*.pxi")}


def test_what_would_be_a_use_of_a_lower_room_is_found():
    """The counting itself: it sees every kind of definition."""
    names = {room.rpartition("/")[2].removesuffix(".pxi"): defined(source) for room, source in rooms().items()}
    assert {"block_new", "BLOCK_BYTES"} <= names["arena"]
    assert {"TICK_SECONDS", "ticks", "NO_TIMER"} <= names["clock"]
    assert {"HEAD", "OPEN", "logger", "is_sendable"} <= names["connection"]
    assert {"Headers", "parse_request"} <= names["request"]
    assert {"SOCKET", "socket_write", "BUFFER_BYTES"} <= names["socket"]
    assert {"many", ".deliver_all"} <= names["endpoint"]
    assert {"resume", "receive"} <= names["input"]
    assert {".tick", ".read_on"} <= names["reactor"]


def test_close_codes_are_decided_in_one_room():
    code = re.compile(r"\b(?:10[01]\d|[34](?:000|999))\b")
    assert [room for room, source in rooms().items() if code.search(bare(source))] == ["engine/peer/closing.pxi"]


def test_no_line_of_the_engine_is_over_120_columns():
    """ruff does not read these files."""
    sources = [file for kind in ("*.pxi", "*.pxd", "*.pyx", "*.h") for file in (ROOT / "fastws").rglob(kind)]
    long = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in sources
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if len(line) > 120
    ]
    assert long == []


def imports(source):
    """Our modules that a module imports at import time or under TYPE_CHECKING."""
    package = ["fastws", *source.relative_to(ROOT / "fastws").parts[:-1]]
    for node in top_level(ast.parse(source.read_text()).body):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*package[: len(package) + 1 - node.level], *filter(None, [node.module])]
            yield from (".".join([*base, *([] if node.module else [alias.name])]) for alias in node.names)


def top_level(statements):
    for node in statements:
        yield node
        yield from top_level(node.body if isinstance(node, ast.If) else ())


def modules():
    """Every module of ours, with those of ours that it imports."""
    return {
        ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): set(imports(source))
        for source in (ROOT / "fastws").rglob("*.py")
    }


def is_wing(module):
    return module.split(".")[1] in WINGS


def test_the_library_knows_nothing_of_what_is_built_on_it():
    known = modules()
    assert "fastws.server" in known["fastws.hub"]
    assert "fastws.access.rules" in known["fastws.v1.gate"]
    for module in ("fastws", *(f"fastws.{name}" for name in ("auth", "config", "listener", "manager", "server"))):
        assert [other for other in known[module] if "." in other and is_wing(other)] == []
    for module in [name for name in known if name.startswith(("fastws.life", "fastws.demo"))]:
        assert [other for other in known[module] if "." in other and is_wing(other)] == []


def test_imports_form_no_circle():
    known = modules()
    assert {"fastws.manager", "fastws.life.connection"} <= known["fastws.server"]
    assert list(graphlib.TopologicalSorter(known).static_order())


def test_the_stub_is_true_to_the_engine():
    check("mypy.stubtest", "fastws._core")


def test_the_stub_has_the_docstrings_of_the_engine():
    assert stub.STUB.read_text() == stub.with_docstrings(stub.STUB.read_text()), "run: python -m tools.stub"


def test_types_check():
    check("mypy", "--strict", "fastws", "tools")


@pytest.mark.parametrize(("keywords", "options"), [(EndpointKeywords, EndpointOptions), (OptionKeywords, Options)])
def test_the_options_have_the_same_types_as_keywords(keywords, options):
    assert typing.get_type_hints(keywords) == {option.name: option.type for option in fields(options)}
    assert not keywords.__required_keys__


def test_every_exception_is_below_the_root():
    modules = {importlib.import_module(f"fastws.{source.stem}") for source in (ROOT / "fastws").glob("[!_]*.py")}
    own = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == module.__name__
    }
    assert {error.__name__ for error in own} > {"Closed", "ConfigurationError", "Refused", "Reject", "TokenError"}
    assert [error for error in own if not issubclass(error, fastws.FastWSError)] == []


SNIPPET = """
from fastws import Listener, Server, WebSocket

def on_message(ws: WebSocket) -> None:
    reveal_type(ws.manager.broadcast("cars", "hi"))
    reveal_type(ws.session)

server = Server(port=0, max_backlog=1024, restart=True)
server.endpoint("/", Listener(), overflow="close", max_backlog=1024)
server.reconfigure(host="::1", max_arena=1 << 30)
Server(max_mesage_size=1)  # error
Server(max_message_size="1")  # error
Server().endpoint("/", max_mesage_size=1)  # error
Server().endpoint("/", max_arena=1 << 30)  # error
Server().endpoint("/", overflow="perhaps")  # error
server.reconfigure(prot=1)  # error
"""


def test_type_checkers_know_the_options_and_the_connection(tmp_path):
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", snippet],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    told = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert told == [number for number, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# error")], said
    assert 'Revealed type is "int"' in said.replace("builtins.", "")
    assert 'Revealed type is "fastws.sessions.Session | None"' in said or "Union[fastws.sessions.Session, None]" in said


def test_the_linter_is_content():
    check("ruff", "check")


# Still to be cut.
TOO_LONG = {"fastws/sessions.py"}


def test_no_file_of_python_has_over_500_lines():
    parts = (ROOT / name for name in ("bench", "examples", "fastws", "tests", "tools"))
    sources = [source for part in parts for source in part.rglob("*.py") if "node_modules" not in source.parts]
    long = {str(source.relative_to(ROOT)) for source in sources if len(source.read_text().splitlines()) > 500}
    assert long == TOO_LONG
