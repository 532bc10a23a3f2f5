"""The pages name commands and flags that there are."""

import re
import shlex
from pathlib import Path

import pytest
from click import Context

from fastws.command.main import COMMANDS, cli
from fastws.command.settings import load
from tools import configuration

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]


def test_the_page_of_the_configuration_is_that_of_the_declarations():
    assert configuration.PAGE.read_text() == configuration.page(), "run: python -m tools.configuration"


def test_the_example_works(tmp_path):
    (text,) = re.findall(r"```toml\n(.*?)```", configuration.HEAD, re.DOTALL)
    file = tmp_path / "fastws.toml"
    file.write_text(text)
    found = load(file, {}, {})
    assert (found.options["port"], found.api.keys[0].name, found.channels[0].subscribe) == (8765, "shop", "user")


def commands():
    """What each page has of `fastws`, in boxes and in its text, up to where the shell's own begins."""
    for page in PAGES:
        text = page.read_text()
        boxes = "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL))
        for line in [
            *re.findall(r"^(?:\$ )?(fastws .*)$", boxes, re.MULTILINE),
            *re.findall(r"`(fastws [^`]*)`", text),
        ]:
            words = shlex.split(re.split(r" [|&]| 2>", line)[0], comments=True)
            if words[1:] and "--help" not in words:
                yield pytest.param(words[1:], id=f"{page.name}: {line}")


@pytest.mark.parametrize("words", list(commands()))
def test_each_command_line_in_the_pages_is_one(words):
    name, *rest = words
    assert name in COMMANDS
    command = cli.get_command(Context(cli), name)
    if len(rest) > 1:  # otherwise it may be only the name of something
        command.make_context(name, rest)


def test_each_flag_in_the_pages_is_one():
    flags = [p for name in COMMANDS for p in cli.get_command(Context(cli), name).params]
    known = {flag for p in flags for flag in (*p.opts, *p.secondary_opts)}
    for page in PAGES:
        assert set(re.findall(r"`(--[a-z-]+)", page.read_text())) <= known
