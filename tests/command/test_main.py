"""The group of subcommands: each explains itself, and costs nothing where it is not used."""

import subprocess
import sys

import pytest

from fastws.command.main import COMMANDS

from ..lib.command import run


def test_the_help_names_every_subcommand():
    text = run("--help").stdout
    for name, does in COMMANDS.items():
        assert f"  {name}" in text
        assert does in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_explains_itself(name):
    ended = run(name, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"Usage: fastws {name}")


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["--help"], {"fastws.command.settings", "msgspec", "aiohttp", "starlette", "joserfc"}),
        (["serve", "--help"], {"aiohttp", "starlette", "uvicorn", "joserfc", "fastws.standalone", "fastws.hooks"}),
        (["config"], {"aiohttp", "starlette", "uvicorn", "joserfc", "fastws.standalone", "fastws.hooks"}),
    ],
)
def test_nothing_is_imported_that_is_not_used(folder, arguments, without):
    code = (
        "import sys; sys.argv = ['fastws', *sys.argv[1:]]; from fastws.command.main import main\n"
        "try: main()\nexcept SystemExit: print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert set(done.stderr.splitlines()) & without == set()
