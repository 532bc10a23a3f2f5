"""A reader who pastes each box of a page into a terminal, or into the file that its first line names."""

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from .command import TIMEOUT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- check: (.+?) -->$", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"^(?:#|//|<!--) ([\w./-]+\.\w+)(?: -->)?\n")
RUNS_ON = "  # leave it running"
# What a shell has set and where it is then hold for the next box.
SHELL = """
set -ea
. "$0/environment" 2>/dev/null || true
cd "$(cat "$0/folder")"
. "$0/box"
pwd > "$0/folder"
export -p > "$0/environment"
"""


class Box(NamedTuple):
    """What is fenced, or a check (which is for the test alone, and without a language)."""

    language: str
    text: str
    line: int


def boxes(page):
    """The boxes and checks of a page, in order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        language, content, check = match.groups()
        yield Box(language or "", check or content, text.count("\n", 0, match.start()) + 1)


class Reader:
    """Somebody with a folder and a terminal; ``ports`` replaces those of the pages by ones that are free."""

    def __init__(self, folder, state, ports):
        self.folder = folder
        self.ports = ports
        self.said = ""
        self._log: Path | None = None  # of what was started last, if that is the last box
        self._state = state
        self._running: dict[str, tuple[subprocess.Popen, Path]] = {}
        state.joinpath("folder").write_text(str(folder))

    @property
    def here(self):
        return Path(self._state.joinpath("folder").read_text().strip())

    def read(self, box):
        """Does what the box wants; raises AssertionError where it does not do what the page says."""
        text = self.with_ports(box.text)
        if box.language == "sh":
            if text.endswith(RUNS_ON + "\n"):
                self.start(text.removesuffix(RUNS_ON + "\n"))
            else:
                self.said, self._log = self.run(text), None
        elif box.language == "text":
            self.expect(text)
        elif box.language not in ("console", "ini"):  # which shows what is not for every machine
            name = NAME.match(text)
            assert name, f"no file is named in the first line: {text[:60]!r}"
            self.here.joinpath(name[1]).write_text(text)

    def with_ports(self, text):
        return re.sub(r"\b(" + "|".join(self.ports) + r")\b", lambda match: self.ports[match[1]], text)

    def run(self, text):
        self._state.joinpath("box").write_text(text)
        command = ["bash", "-c", SHELL, self._state]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for made in self.here.glob("fastws.*"):
            made.write_text(self.with_ports(made.read_text()))
        return done.stdout

    def start(self, text):
        """What runs on is one of its kind: the one before gets a Ctrl-C."""
        kind = " ".join(text.split()[:2])
        self.stop(kind)
        output = self._state / f"{kind.replace(' ', '-')}.out"
        self._state.joinpath("box").write_text(f"exec {text}")
        with output.open("w") as file:
            process = subprocess.Popen(["bash", "-c", SHELL, self._state], stdout=file, stderr=file)
        self._running[kind] = process, output
        self._log = output

    def stop(self, kind):
        if kind in self._running:
            process, _ = self._running.pop(kind)
            process.send_signal(signal.SIGINT)
            process.wait(TIMEOUT)

    def stop_all(self):
        for kind in list(self._running):
            self.stop(kind)

    def expect(self, text, of=None):
        """Compares what was printed ("..." stands for anything); what runs on has time, and may say more."""
        wanted = ".*".join(re.escape(part) for part in text.strip("\n").split("..."))
        log = self._running[of][1] if of else self._log
        if log is None:
            assert re.fullmatch(wanted, self.said.strip("\n"), re.DOTALL), f"not {text!r}, but {self.said!r}"
            return
        until = time.monotonic() + TIMEOUT
        while not re.match(wanted, said := log.read_text(), re.DOTALL):
            assert time.monotonic() < until, f"not {text!r}, but {said!r}"
            time.sleep(0.02)
