"""The documentation says what is so: its links lead somewhere, and its table of options is that of the code."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fastws.config import EndpointOptions, Options

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TABLE = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE)


def option_rows():
    """Each option as a row of docs/promises.md."""
    shared = {option.name for option in fields(EndpointOptions)}
    yield "| option | default | per endpoint | what it says |"
    yield "| --- | --- | --- | --- |"
    for option in sorted(fields(Options), key=lambda option: option.name):
        if option.name == "flush_threads":
            default = "min(4, cores)"
        elif option.name == "uds_permissions":
            default = f"{option.default:#o}"
        elif isinstance(option.default, int) and not isinstance(option.default, bool):
            default = f"{option.default:,}"
        else:
            default = "none" if option.default in (None, ()) else str(option.default)
        yield f"| `{option.name}` | {default} | {'yes' if option.name in shared else ''} | {option.metadata['help']} |"


def test_the_table_of_options_is_that_of_the_code():
    tables = TABLE.findall((ROOT / "docs/promises.md").read_text())
    assert "\n".join(option_rows()) + "\n" in tables


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
