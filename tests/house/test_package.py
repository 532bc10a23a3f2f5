"""The distribution: an sdist, installed into a clean environment, works from any folder."""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTALL = (ROOT / "docs" / "install.md").read_text()

# Python says it of itself.
FREE_THREADED = """
import runpy, sysconfig
sysconfig.get_config_vars()["Py_GIL_DISABLED"] = 1
runpy.run_path("setup.py")
"""

pytestmark = pytest.mark.timeout(600)


def run(*command, cwd, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("package")


@pytest.fixture(scope="module")
def sdist(folder):
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("fastws_server-*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(folder, sdist):
    """Built with nothing but what the sdist asks for; without optimisation, which takes longest."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sdist, cwd=folder, FASTWS_DEBUG="1")
    (path,) = folder.glob("fastws_server-*.whl")
    return path


@pytest.fixture(scope="module")
def python(folder, wheel):
    """The interpreter of a clean environment with fastws and what it needs, without an extra."""
    venv.create(folder / "clean", with_pip=True)
    python = folder / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", wheel, cwd=folder)
    return python


def minor_versions(text, pattern):
    return [int(minor) for minor in re.findall(pattern, text)]


def test_there_are_wheels_for_every_python_that_is_named():
    pythons = minor_versions(PROJECT["tool"]["cibuildwheel"]["build"], r"cp3(\d+)-")
    assert pythons == minor_versions("\n".join(PROJECT["project"]["classifiers"]), r"Python :: 3\.(\d+)")
    assert f"CPython 3.{pythons[0]} to 3.{pythons[-1]}." in INSTALL
    assert set(pythons) == {*minor_versions(INSTALL, r"3\.(\d+)\.\d")}
    assert PROJECT["project"]["requires-python"] == f">=3.{pythons[0]}"


def test_the_page_of_installing_has_every_extra_and_what_it_brings():
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", INSTALL, re.MULTILINE))
    extras = PROJECT["project"]["optional-dependencies"]
    assert rows.keys() == extras.keys()
    for extra, brought in rows.items():
        wanted = {re.match(r"[\w-]+", requirement)[0] for requirement in extras[extra]}
        named = {name.lower() for name in brought.split(", ")}
        assert named <= wanted <= named | {"msgspec", "fastws-server"}, extra


def test_the_sdist_holds_sources_and_nothing_built(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "fastws").rglob("*.p[xy]*") if path.suffix != ".pyc"
    }
    assert sources | {"LICENSE", "README.md", "setup.py", "pyproject.toml", "tests/conftest.py"} <= names
    assert not [name for name in names if name.endswith((".so", "_core.c", ".pyc")) or "node_modules" in name]


def test_the_wheel_holds_what_users_of_types_and_of_cimport_need(wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"fastws/py.typed", "fastws/_core.pyi", "fastws/_core.pxd", "fastws/demo/chat.html"} <= names
    assert {"fastws/client/fastws.js", "fastws/client/fastws.d.ts", "fastws/web/admin.html"} <= names
    assert {"fastws/backplane/_push.pyi", "fastws/backplane/redis/append.lua"} <= names
    assert not [name for name in names if name.endswith((".c", ".pyx", ".pxi")) or name.startswith("tests")]


def test_the_installed_package_works_from_another_folder(python, tmp_path):
    done = run(python, "-W", "error", *shlex.split(PROJECT["tool"]["cibuildwheel"]["test-command"])[1:], cwd=tmp_path)
    assert done.startswith("echo, broadcast to 128, compression, TLS: all right")


def test_the_extra_has_what_the_command_line_needs(python, wheel, tmp_path):
    run(python, "-m", "pip", "install", "-q", f"{wheel}[server]", cwd=tmp_path)
    version = PROJECT["project"]["version"]
    assert run(python.with_name("fastws"), "--version", cwd=tmp_path).startswith(f"fastws {version} with CPython")


def test_a_free_threaded_python_gets_a_sentence():
    command = [sys.executable, "-c", FREE_THREADED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("fastws does not work with free-threaded Python yet: ")


def test_types_reach_the_users_of_the_installed_package(python, tmp_path):
    tmp_path.joinpath("app.py").write_text(
        "from fastws import WebSocket\n\ndef f(ws: WebSocket) -> str:\n    return ws.id\n"
    )
    run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "app.py", cwd=tmp_path)


def test_it_can_be_cimported(python, tmp_path):
    tmp_path.joinpath("user.pyx").write_text("# cython: language_level=3\nfrom fastws._core cimport WebSocket\n")
    site = run(python, "-c", "import fastws; print(fastws.__path__[0])", cwd=tmp_path).strip()
    run(sys.executable, "-m", "cython", "-I", Path(site).parent, "user.pyx", cwd=tmp_path)
