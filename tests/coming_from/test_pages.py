"""Every page in docs/coming-from: its programs run, its configuration is one, and the names in its tables are there."""

import json
import re
import tomllib

import pytest

from fastws import Listener, Request, Server, WebSocket
from fastws.client import Connection
from fastws.command.settings import load
from fastws.hooks import shapes
from fastws.web.openapi import document

from ..backplane.conftest import redis_server  # noqa: F401  (a fixture)
from ..lib import pages
from . import cfml

ANSWERS = (shapes.ConnectAnswer, shapes.SubscribeAnswer, shapes.PublishAnswer, shapes.CallAnswer)
REDIS = "redis://127.0.0.1:6379"

PAGES = sorted((pages.DOCS / "coming-from").glob("*.md"))
BLOCKS = [block for page in PAGES for block in pages.blocks(page)]


def of(*languages):
    return [pytest.param(b, id=f"{b.page}:{b.line}") for b in BLOCKS if b.language in languages]


def test_the_pages_are_there():
    assert [page.stem for page in PAGES] == [
        "centrifugo",
        "coldfusion",
        "lucee",
        "pusher",
        "socketio",
        "starlette",
        "websockets",
    ]
    assert {block.language for block in BLOCKS} <= {"python", "toml", "cfc", "json", "js", "html", "sh"}


@pytest.mark.parametrize("block", of("python"))
async def test_a_program_serves_as_it_is_printed(block, request):
    instead = {}
    if REDIS in block.text:
        instead[REDIS] = request.getfixturevalue("redis_server").url
    server = pages.run(block.text, instead)["server"]
    assert isinstance(server, Server)
    async with server:
        assert server.is_ready


@pytest.mark.parametrize("block", of("toml"))
def test_a_configuration_is_one(block, tmp_path):
    file = tmp_path / "fastws.toml"
    file.write_text(block.text)
    settings = load(file, {}, {})
    assert len(settings.channels) == len(tomllib.loads(block.text).get("channels", []))


@pytest.mark.parametrize("block", of("json"))
def test_json_is_json(block):
    json.loads(block.text)


@pytest.mark.parametrize(
    "block", [*of("cfc"), *(b for b in pages.blocks(pages.DOCS / "api.md") if b.language == "cfc")]
)
def test_cfml_can_be_parsed_and_its_calls_are_those_of_the_api(block):
    assert cfml.faults(block.text) == []
    for route, keys in cfml.posts(block.text):
        assert keys <= fields(route), route
    for keys in cfml.answers(block.text):
        assert any(keys <= set(answer.__struct_fields__) for answer in ANSWERS), keys


def fields(route):
    """The keys that a route takes."""
    described = document("/api")
    schema = described["paths"][f"/api/{route}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return set(described["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]["properties"])


def test_what_is_no_cfml_is_found():
    assert cfml.faults('answer = {"a": 1, "b" 2};')
    assert cfml.faults("function f() { return 1;")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_the_names_in_the_tables_are_those_of_the_library(page):
    server = Server(port=0)
    manager = server.endpoint("/ws/{channel}", Listener())
    known = {"manager": dir(manager), "server": dir(server), "request": dir(Request)}
    known["ws"] = dir(WebSocket) + dir(Connection)  # that of a client, where the row is about one
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert rows
    for row in rows:
        ours = " ".join(re.findall(r"`([^`]+)`", row.split(" | ", 1)[1]))
        for subject, name in re.findall(r"(?<![\w.])(manager|server|ws|request)\.(\w+)", ours):
            assert name in known[subject], row
        for name in re.findall(r"\b(on_\w+|authorize|can_see)\(", ours):
            assert hasattr(Listener, name), row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_or_a_part_of_one_leads_there(page):
    for target, part in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        if part:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert part in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, part
