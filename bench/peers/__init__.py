"""The servers that are compared: how each is started, and its version."""

import json
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import run

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Peer:
    name: str
    packages: tuple[str, ...] = ()  # from PyPI; their versions are reported
    module: str = ""
    fan_out_only: bool = False
    python: bool = True

    @property
    def command(self):
        if not self.python:
            return ["node", "--expose-gc", str(HERE / "ws_server.mjs")]
        return [sys.executable, "-m", f"bench.peers.{self.module or self.name}_server"]

    def prepare(self):
        """Install what is missing; raises if that fails."""
        if not self.python and not (HERE / "node_modules").exists():
            npm = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
            run(npm, cwd=HERE, check=True, timeout=120, capture_output=True)

    def versions(self):
        if self.python:
            return " ".join(f"{package} {package_version(package)}" for package in self.packages)
        ws = json.loads((HERE / "node_modules/ws/package.json").read_text())["version"]
        node = run(["node", "--version"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        return f"ws {ws} Node {node}"


def package_version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "(source tree)"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("fastws", ("fastws-server", "uvloop")),
        Peer("socketify", ("socketify",)),
        Peer("picows", ("picows", "uvloop")),
        Peer("websockets", ("websockets", "uvloop")),
        Peer("aiohttp", ("aiohttp", "uvloop")),
        Peer("starlette", ("starlette", "uvicorn", "uvloop")),
        Peer("ws", python=False),
        Peer("send-loop", module="send_loop", fan_out_only=True),
    )
}
