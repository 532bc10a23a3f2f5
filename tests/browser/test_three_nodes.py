"""Four people in Chromium, three nodes of the demo behind nginx; the node of two of them is killed under them."""

import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest
import pytest_asyncio

from ..lib.demos import demos
from ..lib.redis import RedisServer
from ..lib.support import unused_port
from ..lib.tab import IN_CHROMIUM, TIMEOUT, Tab, expect

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = [*IN_CHROMIUM, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]

NAMES = ("ann", "bob", "cid", "dora")

# Each browser has a node of its own, as long as that answers.
CONFIG = """
pid {folder}/pid;
daemon off;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    map $http_user_agent $node {{ node-0 node0; node-1 node1; default node2; }}
    {upstreams}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://$node;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


@contextmanager
def nginx(folder, nodes):
    """nginx in front of nodes. Yields its port."""
    upstreams = ""
    for number in range(len(nodes)):
        servers = [
            f"server 127.0.0.1:{node.port}{'' if other == number else ' backup'};" for other, node in enumerate(nodes)
        ]
        upstreams += f"upstream node{number} {{ {' '.join(servers)} }}\n"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    with unused_port() as port:
        config = CONFIG.format(folder=folder, temporary=temporary, upstreams=upstreams, port=port)
        folder.joinpath("nginx.conf").write_text(config)
        command = [NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                _wait(folder / "pid", process)
                yield port
            finally:
                process.terminate()
                process.communicate(timeout=TIMEOUT)


def _wait(pid, process):
    """Until it listens: its pid is written then."""
    end = time.monotonic() + TIMEOUT
    while not (pid.exists() and pid.read_text().strip()):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def site(tmp_path):
    """Three nodes, and the port of nginx in front of them."""
    redis = RedisServer(tmp_path).start()
    try:
        with demos(redis, 3, "--lease", "3") as nodes, nginx(tmp_path, nodes) as port:
            yield nodes, port
    finally:
        redis.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def join(browser, site):
    tabs = []

    async def join(name, node, channel="cars"):
        context = await browser.new_context(user_agent=f"node-{node}")
        tab = Tab(await context.new_page())
        tabs.append(tab)
        await tab.page.goto(f"http://127.0.0.1:{site[1]}/")
        await tab.log_in(name, channel)
        await tab.until(type="presence", event="list", channel=channel)
        return tab

    yield join
    for tab in tabs:
        await tab.page.context.close()
    assert [error for tab in tabs for error in tab.errors] == []
    assert [stray for tab in tabs for stray in tab.strays()] == []


def nodes_of(tab):
    """On which nodes a tab has been, one after the other: ids of connections begin with that of the node."""
    return [frame["id"].partition("-")[0] for frame in tab.got("welcome")]


async def test_four_people_on_three_nodes_one_of_which_is_killed(site, join):
    nodes, _ = site
    ann, bob, cid, dora = tabs = [await join(name, node) for name, node in zip(NAMES, (0, 0, 1, 2), strict=True)]
    for tab in tabs:
        await expect(tab.members).to_have_count(4)
    assert nodes_of(ann) == nodes_of(bob)
    assert len({nodes_of(tab)[0] for tab in tabs}) == 3
    await ann.say("from one node")
    await cid.say("and from another")
    for tab in tabs:
        await expect(tab.texts).to_have_text(["from one node", "and from another"])
    await dora.act("Block", "cid")
    await expect(cid.members).to_have_count(3)
    await dora.unblock("cid")
    await expect(cid.members).to_have_count(4)

    nodes[0].kill()
    for number in range(3):
        await cid.say(f"meanwhile {number}")
        await dora.say(f"meanwhile {number}, too")
    texts = ["from one node", "and from another"]
    texts += [text for number in range(3) for text in (f"meanwhile {number}", f"meanwhile {number}, too")]
    for tab in (ann, bob):
        await expect(tab("#state")).to_have_text("Online")
        await expect(tab.texts).to_have_count(len(texts))
        assert sorted(await tab.texts.all_text_contents()) == sorted(texts)
    assert len(set(nodes_of(ann))) == len(set(nodes_of(bob))) == 2
    order = await ann.texts.all_text_contents()
    for tab in tabs:
        assert await tab.texts.all_text_contents() == order

    await ann.say("back again")
    await bob.pick("dora")
    await bob.say("for dora alone")
    for tab in (bob, dora):
        await expect(tab(".message.whisper .text")).to_have_text(["for dora alone"])
    await ann.page.wait_for_timeout(5000)  # by now the node is dead to the others
    for tab in tabs:
        await expect(tab.members).to_have_count(4)
    for tab in (cid, dora):
        assert tab.got("presence", event="leave", user="ann") == tab.got("presence", event="leave", user="bob") == []
    assert cid.told_of("for dora alone") == ann.told_of("for dora alone") == []

    await bob.log_out()
    for tab in (ann, cid, dora):
        await expect(tab.members).to_have_count(3)
