"""The servers that are compared: how each is started, and its version."""

import json
import sys
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    name: str
    packages: tuple[str, ...] = ()  # from PyPI or npm; their versions are reported
    module: str = ""
    fan_out_only: bool = False
    script: str = ""  # of Node, whose packages are those of npm beside it
    node: str = ""  # the module that is one of several nodes, if there is such a thing
    node_only: bool = False  # it is in scenarios with several nodes only
    group: str = ""  # of scenarios, in which alone it takes part; empty: all others
    arguments: tuple[str, ...] = ()
    keeps: tuple[bool, ...] = (False,)  # with several nodes: whether it keeps messages for those who come back
    can: tuple[str, ...] = ("tls", "compression")  # what a scenario may need
    path: str = "/ws/{channel}"  # where a member of a channel of a node connects
    greeting: str = ""  # a text that a member has to send first

    @property
    def command(self):
        if self.script:
            return ["node", "--expose-gc", str(HERE / self.script), *self.arguments]
        module = self.module or (self.node if self.node_only else f"{self.name}_server")
        return [sys.executable, "-m", f"bench.peers.{module}", *self.arguments]

    def as_node(self):
        """Returns this peer as one of several nodes; None if it cannot be that."""
        return replace(self, module=self.node) if self.node or self.node_only else None

    def prepare(self):
        """Install what is missing; raises if that fails."""
        folder = (HERE / self.script).parent
        if self.script and not (folder / "node_modules").exists():
            npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
            run(npm, cwd=folder, check=True, timeout=120, capture_output=True)

    def versions(self):
        if not self.script:
            return " ".join(f"{package} {package_version(package)}" for package in self.packages)
        modules = (HERE / self.script).parent / "node_modules"
        read = {name: json.loads((modules / name / "package.json").read_text()) for name in self.packages}
        node = run(["node", "--version"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        return " ".join(f"{name} {about['version']}" for name, about in read.items()) + f" Node {node}"


def package_version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "(source tree)"


SOCKETIO = {
    "script": "socketio/node.mjs",
    "node_only": True,
    "path": "/socket.io/?EIO=4&transport=websocket&channel={channel}",
    "greeting": "40",
}


def fastapi(name, server, *packages, **fields):
    """One application of FastAPI on one server."""
    module = {"module": "fastapi_server", "arguments": ("--server", server), "group": "asgi"}
    return Peer(name, ("fastapi", *packages), **{**module, **fields})


PEERS = {
    peer.name: peer
    for peer in (
        Peer("fastws", ("fastws-server", "uvloop"), node="fastws_node", keeps=(False, True)),
        Peer("socketify", ("socketify",)),
        Peer("picows", ("picows", "uvloop"), can=("tls",)),
        Peer("websockets", ("websockets", "uvloop")),
        Peer("aiohttp", ("aiohttp", "uvloop")),
        Peer("starlette", ("starlette", "uvicorn", "uvloop")),
        Peer("ws", ("ws",), script="ws_server.mjs"),
        Peer("send-loop", module="send_loop_server", fan_out_only=True),
        Peer("socket.io", ("socket.io", "@socket.io/redis-adapter"), **SOCKETIO),
        Peer(
            "socket.io-streams",
            ("socket.io", "@socket.io/redis-streams-adapter"),
            arguments=("--streams",),
            keeps=(True,),
            **SOCKETIO,
        ),
        Peer(
            "python-socketio",
            ("python-socketio", "uvicorn"),
            node="python_socketio_node",
            **{**SOCKETIO, "script": ""},
        ),
        Peer("channels", ("channels", "channels_redis"), node="channels_node", node_only=True),
        Peer(
            "channels-pubsub",
            ("channels", "channels_redis"),
            node="channels_node",
            node_only=True,
            arguments=("--pubsub",),
        ),
        fastapi("fastapi", "fastws", "fastws-server", "uvloop"),
        fastapi(
            "fastapi-channels",
            "fastws",
            "fastws-server",
            "uvloop",
            arguments=("--server", "fastws", "--channels"),
            fan_out_only=True,
        ),
        fastapi("fastapi-sansio", "websockets-sansio", "uvicorn", "websockets", "uvloop"),
        fastapi("fastapi-websockets", "websockets", "uvicorn", "websockets", "uvloop"),
        fastapi("fastapi-wsproto", "wsproto", "uvicorn", "wsproto", "uvloop"),
        fastapi("fastapi-granian", "granian", "granian", "uvloop"),
    )
}
