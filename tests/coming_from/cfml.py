"""CFML: what the grammar finds wrong in it, what it sends and answers, and an application that answers as its hooks do.

No CFML engine is among the packages that a fresh machine can install, so `Application` stands in for one: it keeps
sessions of its own by `cfid` and `cftoken`, and answers as hooks.cfm of docs/coming-from/lucee.md.
"""

import re
import secrets
from typing import Any, Self

import tree_sitter_cfml
from aiohttp import web
from tree_sitter import Language, Node, Parser

from fastws.hooks import verify

PARSER = Parser(Language(tree_sitter_cfml.language_cfscript()))


def faults(source: str) -> list[tuple[int, str]]:
    """Line and text of whatever is no CFML; a semicolon after the } of a tag is one that only the grammar misses."""
    script = re.sub(r"</?cfscript>", lambda tag: " " * len(tag[0]), source)

    def found(node: Node) -> list[tuple[int, str]]:
        if node.is_error or (node.is_missing and node.type != ";"):
            return [(node.start_point.row + 1, (node.text or b"").decode())]
        return [fault for child in node.children for fault in found(child)]

    return found(PARSER.parse(script.encode()).root_node)


def posts(source: str) -> list[tuple[str, set[str]]]:
    """Each route of the API that the source names, and the keys of the bodies on the lines around it."""
    found = []
    for match in re.finditer(r"/api/(\w+)", source):
        start, end = source.rfind("\n\n", 0, match.start()), source.find("\n\n", match.end())
        around = source[max(start, 0) : end if end >= 0 else len(source)]
        keys = set(re.findall(r'[{,]\s*"(\w+)":|body\["(\w+)"\]', around))
        found.append((match[1], {a or b for a, b in keys}))
    return found


def answers(source: str) -> list[set[str]]:
    """The keys of each answer that says yes."""
    found = []
    for match in re.finditer(r"answer\(200, \{", source):
        depth, keys = 1, set()
        for token in re.finditer(r'[{}]|"(\w+)":', source[match.end() :]):
            depth += {"{": 1, "}": -1}.get(token[0], 0)
            if depth == 0:
                break
            if depth == 1 and token[1]:
                keys.add(token[1])
        found.append(keys)
    return found


class Application:
    """A CFML application with sessions, whose hooks.cfm is at `url`."""

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.sessions: dict[tuple[str, str], dict[str, Any]] = {}
        self.connects = 0  # how often it was asked about one
        self.url = ""

    def log_in(self, user: str, **more: Any) -> str:
        """Begin a session; the cookies that the browser has then."""
        cfid, cftoken = secrets.token_hex(8), "0"
        self.sessions[cfid, cftoken] = {"user": user, **more}
        return f"cfid={cfid}; cftoken={cftoken}"

    def decide(self, hook: dict[str, Any], session: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status and the content of an answer."""
        if hook["event"] != "connect":
            return 200, {}
        user = session.get("user") or {"ticket-17": "orders"}.get(hook["connection"]["query"].get("ticket"))
        if user is None:
            return 401, {"error": {"message": "log in first"}}
        return 200, {"user": user, "channels": [f"user.{user}"], "welcome": f"hello {user}"}

    async def hook(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.secret and not verify(self.secret, request.headers, body):
            return web.json_response({"error": {"message": "wrong signature"}}, status=401)
        hook = await request.json()
        self.connects += hook["event"] == "connect"
        session = self.sessions.get((request.cookies.get("cfid", ""), request.cookies.get("cftoken", "")), {})
        status, content = self.decide(hook, session)
        return web.json_response(content, status=status)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/{path:.*}", self.hook)
        self._runner = web.AppRunner(app, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
