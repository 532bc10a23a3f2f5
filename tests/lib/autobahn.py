"""Autobahn's own test suite, which is Python 2 code, against an echo server: python -m tests.lib.autobahn

It needs a python2.7: from FASTWS_PYTHON2, the PATH or pyenv. The suite is
installed once, in a virtual environment of its own under build/autobahn.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from fastws import Listener, Server
from fastws.testing import running

BASIC = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
COMPRESSED = ["12.*", "13.*"]
LIMITS = {"max_message_size": 32 << 20, "max_backlog": 64 << 20}
GOOD = {"OK", "INFORMATIONAL"}
FOLDER = Path(__file__).parent.parent.parent / "build" / "autobahn"


class Echo(Listener):
    def on_message(self, ws, message):
        return message


def echo_server():
    """A server whose limits allow the suite's largest messages."""
    server = Server(port=0, **LIMITS)
    server.endpoint("/", Echo())
    return server


def compressing_echo_server():
    """The same with compression, of all messages."""
    server = Server(port=0, **LIMITS, compression="shared", compression_threshold=0)
    server.endpoint("/", Echo())
    return server


def find_python2():
    """A working python2.7, or None."""
    candidates = [
        os.environ.get("FASTWS_PYTHON2"),
        shutil.which("python2.7"),
        *sorted(Path.home().glob(".pyenv/versions/2.7*/bin/python2.7")),
    ]
    for candidate in filter(None, candidates):
        try:
            subprocess.run([candidate, "-c", "pass"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(candidate)
    return None


def install(python2):
    """The suite's `wstest`, installed if necessary."""
    wstest = FOLDER / "python2" / "bin" / "wstest"
    if not wstest.exists():
        # The last virtualenv that supports Python 2.
        maker = FOLDER / "virtualenv"
        commands = [
            [sys.executable, "-m", "pip", "install", "-q", "--upgrade", "--target", maker, "virtualenv<20.16"],
            ["env", f"PYTHONPATH={maker}", sys.executable, "-m", "virtualenv", "-q", "-p", python2, FOLDER / "python2"],
            [FOLDER / "python2" / "bin" / "pip", "install", "-q", "autobahntestsuite==25.10.1"],
        ]
        for command in commands:
            subprocess.run(command, check=True)
    return wstest


async def run(wstest, url, cases):
    """Run the cases against the server at `url`: {case: (behaviour, closing behaviour)}."""
    spec = {
        "outdir": str(FOLDER / "report"),
        "servers": [{"agent": "fastws", "url": url}],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    spec_file = FOLDER / "fuzzingclient.json"
    spec_file.write_text(json.dumps(spec))
    process = await asyncio.create_subprocess_exec(
        wstest,
        *("--mode", "fuzzingclient", "--spec", spec_file),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"wstest ended with status {process.returncode}: {output.decode()}")
    results = json.loads((FOLDER / "report" / "index.json").read_text())["fastws"]
    return {case: (got["behavior"], got["behaviorClose"]) for case, got in results.items()}


def bad(results):
    """The cases that failed, were non-strict, or did not close as they should."""
    return {case: verdict for case, verdict in results.items() if not GOOD.issuperset(verdict)}


async def main(cases):
    python2 = find_python2()
    if python2 is None:
        sys.exit("Autobahn's suite needs a python2.7: name one in FASTWS_PYTHON2.")
    wstest = install(python2)
    server = compressing_echo_server() if set(cases) & set(COMPRESSED) else echo_server()
    async with running(server) as url:
        results = await run(wstest, url, cases)
    lines = [f"{count:4} {'/'.join(verdict)}" for verdict, count in Counter(results.values()).items()]
    lines += [f"case {case}: {'/'.join(verdict)}" for case, verdict in bad(results).items()]
    sys.stdout.write("\n".join([*lines, f"report: {FOLDER / 'report' / 'index.html'}", ""]))
    if bad(results) or not results:
        sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=BASIC, help="such as 1.* or 9.1.1, or for compression 12.* 13.*")
    asyncio.run(main(parser.parse_args().cases))
