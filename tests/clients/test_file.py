"""fastws.js as a file."""

import gzip
import re

import fastws

from .js import CLIENT


def test_the_file_is_small_and_depends_on_nothing():
    source = (CLIENT / "fastws.js").read_text()
    assert len(gzip.compress(source.encode(), 9)) < 6 * 1024
    assert not re.search(r"^\s*import\b", source, re.MULTILINE)


def test_it_says_its_version():
    assert f'"fastws-js/{fastws.__version__}"' in (CLIENT / "fastws.js").read_text()


def test_the_types_name_what_is_exported():
    def exported(text):
        return set(re.findall(r"^export (?:class|const|function) (\w+)", text, re.MULTILINE))

    assert exported((CLIENT / "fastws.js").read_text()) == exported((CLIENT / "fastws.d.ts").read_text())
