"""docs/troubleshooting.md: what its first part says to do shows why somebody does not get in."""

import re
import subprocess

from ..lib.command import TIMEOUT, serving
from .conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()


def sh(text):
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout


def test_curl_and_refusals_say_why(folder, unused_tcp_port):
    sh("fastws init")
    file = folder / "fastws.toml"
    text = file.read_text().replace("8765", str(unused_tcp_port))
    file.write_text(text.replace('# origins = ["https://www.example.org"]', 'origins = ["https://chat.example.org"]'))
    (block,) = re.findall(r"```sh\n(curl .*?)```", PAGE, re.DOTALL)
    with serving(command=["fastws"]) as (server, line):
        assert line.startswith("fastws listening")
        said = sh(block.replace("8765", str(unused_tcp_port)))
        assert said.startswith("HTTP/1.1 403 ")
        assert "origin not allowed" in said
        (request_id,) = re.findall(r'"request_id":"(\w+)"', said)
        assert request_id in sh("fastws refusals")
        server.terminate()
        assert request_id in server.communicate()[1]
