"""The documentation is correct: its links work, and its page of options matches the code."""

import re
from pathlib import Path

import pytest

from tools import options

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_page_of_options_is_that_of_the_code():
    assert options.PAGE.read_text() == options.page(), "run: python -m tools.options"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_each_row_of_the_page_of_failures_names_tests_that_there_are():
    rows = [row for row in (ROOT / "docs/failures.md").read_text().splitlines() if row.startswith("| **")]
    assert len(rows) > 20
    for row in rows:
        shown = re.findall(r"\]\(\.\./(tests/[^)]+)\) \(([^)]+)\)", row.split(" | ")[-1])
        assert shown, row
        for file, names in shown:
            source = (ROOT / file).read_text()
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE), (file, name)
