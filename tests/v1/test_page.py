"""docs/protocol.md is what the code does: its first conversation, its frames, its error codes."""

import json
import re
from pathlib import Path

from fastws.v1 import frames
from fastws.v1.decisions import STATUSES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "protocol.md").read_text()
CHANGING = {"id", "time", "connections", "subscribers"}


def table(heading):
    """The names in the first column of the table below a heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}


async def test_the_first_conversation_goes_as_written(serve):
    block = PAGE.split("```\n")[1]
    lines = [(line[0], json.loads(line[3:])) for line in block.splitlines()]
    assert [who for who, _ in lines].count("C") == 2
    client = await (await serve()).dial("/ws?user=ann")
    for who, frame in lines:
        if who == "C":
            await client.send(frame)
        else:
            said = await client.receive()
            assert list(said) == list(frame)
            assert {name: value for name, value in said.items() if name not in CHANGING | {"from"}} == {
                name: value for name, value in frame.items() if name not in CHANGING | {"from"}
            }


def test_the_page_names_each_frame_that_clients_send():
    assert table("What a client sends") == {kind.__struct_config__.tag for kind in frames.AnyFrame.__args__}


def test_the_page_names_each_frame_that_the_server_sends():
    sources = [path.read_text() for path in (ROOT / "fastws" / "v1").glob("*.py")]
    sources += [(ROOT / "fastws" / name).read_text() for name in ("auth.py", "presence.py")]
    sent = set(re.findall(r'\{\s*"type": "([a-z]+)"', "\n".join(sources)))
    others = {"online", "offline", "occupied", "vacated", "authenticate"}  # to the backend; and from clients
    assert table("What a server sends") == sent - others


def test_the_page_names_each_code():
    sources = [path.read_text() for path in [*(ROOT / "fastws" / "v1").glob("*.py"), ROOT / "fastws/access/rules.py"]]
    used = set(re.findall(r'Refused\(\s*"([a-z_]+)"', "\n".join(sources)))
    used |= set(re.findall(r'return "([a-z_]+)", [f"\']', "\n".join(sources)))
    by_the_backend = {"conflict", "too_large", "too_fast", "unavailable"}
    assert table("Errors") == used | by_the_backend
    assert set(STATUSES) <= table("Errors")
