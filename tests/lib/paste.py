"""A reader who pastes each box of a page into a terminal, or into the file that its first line names."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .command import TIMEOUT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- check: (.+?) -->$", re.DOTALL | re.MULTILINE)
NAME = re.compile(r"^(?:#|//|<!--) ([\w./-]+\.\w+)(?: -->)?\n")
RUNS_ON = "  # leave it running\n"
# What the shell of a terminal has set, and where it is, hold for its next box; what runs on is its last line.
SHELL = """
set -e
. "$0/environment"
cd "$(cat "$0/folder")"
. "$0/box"
pwd > "$0/folder"
declare -p | grep -v "^declare -[a-zA-Z]*r" > "$0/environment"
. "$0/last"
"""


class Box(NamedTuple):
    """What is fenced, or a check (which is for the test alone, and without a language)."""

    language: str
    text: str
    line: int


def boxes(page: Path) -> Iterator[Box]:
    """The boxes and checks of a page, in order."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        language, content, check = match.groups()
        yield Box(language or "", check or content, text.count("\n", 0, match.start()) + 1)


def as_in_a_terminal() -> None:
    """Programs that something starts in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Reader:
    """Somebody with a folder and terminals: one for each program that runs on, and one for all else.

    ``ports`` replaces those of the pages by ones that are free, and ``state`` is where the terminals are kept.
    """

    def __init__(self, folder: Path, state: Path, ports: dict[str, str], environment: str = ""):
        self.ports = ports
        self.said = ""
        self._folder = folder
        self._state = state
        self._environment = environment
        self._log: Path | None = None  # of what was started last, if that is the last box
        self._running: dict[str, tuple[subprocess.Popen[str], Path]] = {}

    @property
    def here(self) -> Path:
        """Where the terminal for all else is."""
        return Path(self._terminal("else").joinpath("folder").read_text().strip())

    def read(self, box: Box) -> None:
        """Does what the box wants; raises AssertionError where it does not do what the page says."""
        text = self.with_ports(box.text)
        if box.language == "sh" and text.endswith(RUNS_ON):
            self.start(text.removesuffix(RUNS_ON))
        elif box.language == "sh":
            self.said, self._log = self.run(text), None
        elif box.language == "text":
            self.expect(text)
        elif box.language not in ("console", "ini"):  # which show what is not for every machine
            name = NAME.match(text)
            assert name, f"no file is named in the first line: {text[:60]!r}"
            self.here.joinpath(name[1]).write_text(text)

    def with_ports(self, text: str) -> str:
        return re.sub(r"\b(" + "|".join(self.ports) + r")\b", lambda match: self.ports[match[1]], text)

    def run(self, text: str) -> str:
        """What a box prints."""
        command = self._command("else", text)
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for made in self.here.glob("fastws.*"):
            made.write_text(self.with_ports(made.read_text()))
        return done.stdout

    def start(self, text: str) -> None:
        """What runs on has a terminal of its own, in which the one before gets a Ctrl-C."""
        *lines, last = text.split("\n")
        kind = " ".join(last.split()[:2])
        self.stop(kind)
        self._log = self._terminal(kind) / "output"
        command = self._command(kind, "\n".join(lines), f"exec {last}")
        with self._log.open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, text=True, preexec_fn=as_in_a_terminal)
        self._running[kind] = process, self._log

    def _command(self, terminal: str, text: str, last: str = "") -> list[str | Path]:
        state = self._terminal(terminal)
        state.joinpath("box").write_text(text)
        state.joinpath("last").write_text(last)
        return ["bash", "-c", SHELL, state]

    def _terminal(self, name: str) -> Path:
        state = self._state / name.replace(" ", "-")
        if not state.exists():
            state.mkdir()
            state.joinpath("folder").write_text(str(self._folder))
            state.joinpath("environment").write_text(self._environment)
        return state

    def stop(self, kind: str) -> None:
        if kind in self._running:
            process, _ = self._running.pop(kind)
            with process:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(TIMEOUT)
                finally:
                    process.kill()

    def stop_all(self) -> None:
        for kind in list(self._running):
            self.stop(kind)

    def expect(self, text: str, of: str | None = None) -> None:
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
