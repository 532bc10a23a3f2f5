"""Serves `/fastws.js`, the client for browsers, and its types beside it."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from ..answers import Answer
from .app import Handler, Web, WebRequest

__all__ = ["PATH", "add_to"]

PATH = "/fastws.js"
# As a resource of the package, without an import of the client for Python, which a server has no use for.
FILES = files("fastws").joinpath("client")
# A browser asks each time, and gets 304: so a page never runs an older client than its server's. What is public may be
# loaded by pages of any origin; whom a socket may be opened by is another matter.
HEADERS = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*", "X-Content-Type-Options": "nosniff"}


def add_to(web: Web, path: str = PATH) -> None:
    """Serve the script at a path, and its types at the same with `.d.ts`."""
    web.add("GET", path, _file("fastws.js", "text/javascript; charset=utf-8"))
    web.add("GET", path.removesuffix(".js") + ".d.ts", _file("fastws.d.ts", "text/plain; charset=utf-8"))


def _file(name: str, kind: str) -> Handler:
    body = FILES.joinpath(name).read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    fresh, unchanged = Answer(200, body, {**headers, "Content-Type": kind}), Answer(304, b"", headers)

    def answer(request: WebRequest) -> Answer:
        known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
        return unchanged if etag in known or "*" in known else fresh

    return answer
