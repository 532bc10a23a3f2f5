"""The documentation is correct: its links work, and its page of options matches the code."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fastws
from tests.lib import pages
from tools import options

ROOT = Path(__file__).parent.parent.parent
PYTHON = pages.blocks(ROOT / "docs" / "python.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_page_of_options_is_that_of_the_code():
    assert options.PAGE.read_text() == options.page(), "run: python -m tools.options"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
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


def test_every_public_name_is_on_a_page_of_the_reference():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    shown = re.findall(r"^\.\. auto(?:class|exception|function):: fastws\.(\w+)$", pages, re.MULTILINE)
    assert sorted(shown) == sorted(set(shown))
    assert set(fastws.__all__) == set(shown)


def parse(language, text):
    """Raises an error where a block is not what it says it is; "..." stands for what is left out."""
    if language == "python":
        ast.parse(text)
    elif language == "toml":
        tomllib.loads(text)
    elif language == "json":
        json.loads(text.replace("...,", "").replace("{...}", "{}"))
    elif language == "sh":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


BLOCK = re.compile(r"^```(python|toml|json|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_code_is_in_its_language(page):
    for language, text in BLOCK.findall(page.read_text()):
        try:
            parse(language, text)
        except Exception as error:
            error.add_note(text)
            raise


@pytest.mark.parametrize("block", [b for b in PYTHON if b.language == "python"], ids=lambda block: block.part)
def test_the_programs_of_the_page_about_python_run(block, tmp_path):
    if "import pytest" not in block.text:
        assert "server" in pages.run(block.text)
        return
    tmp_path.joinpath("app.py").write_text(PYTHON[0].text)
    tmp_path.joinpath("test_app.py").write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_sentences_of_the_page_of_troubles_are_those_that_the_server_says():
    sources = "".join(source.read_text() for kind in ("py", "pxi") for source in (ROOT / "fastws").rglob(f"*.{kind}"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    said = [
        *re.findall(r"^\| \d{3} \| ([^|]+?)(?: \.\.\.)? \|", page, re.MULTILINE),
        *re.findall(r"`([a-z ]{8,})`:? ", page),
    ]
    assert len(said) > 10
    assert [sentence for sentence in said if sentence not in sources] == []


def test_each_metric_that_a_page_names_is_one():
    table = (ROOT / "docs" / "metrics.md").read_text()
    known = set(re.findall(r"^\| `(fastws_\w+)`", table, re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`(fastws_[a-z_]+?)(?:_bucket)?`", page.read_text())
        assert set(named) <= known, page
