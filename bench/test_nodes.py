"""The measuring of several nodes itself: `pytest bench/test_nodes.py`."""

import contextlib
import math
import socket

from bench import machine, report
from bench.nodes import Members, Nodes, hear, masked, percentile
from bench.peers import PEERS
from bench.scenarios import load_scenarios
from bench.scenarios.resume import Client


def test_members_hear_what_another_node_says():
    server_cores, load_cores = machine.share_cores()
    peer = PEERS["fastws"].as_node()
    with Nodes(peer, server_cores, load_cores, seconds=0.2) as nodes:
        url, redis_cpu = nodes.redis()
        hears, says = nodes.start("--store", url), nodes.start("--store", url)
        with contextlib.closing(Members(hears.port)) as members:
            members.join(peer, ["0", "1", "2", "3", "0"])
            said = hear(members, says, 400, 0.2, each=1.25)
            assert said > 0
            assert members.heard == said + math.ceil(said / 4)  # channel 0 has two members
            assert all(0 < seconds < 10 for seconds in members.took)
        assert redis_cpu() > 0


def test_stamps_that_arrive_in_pieces_are_counted_once():
    ours, theirs = socket.socketpair()
    members = Members(0)
    members.sockets[ours.fileno()] = ours
    members.poll.register(ours)
    for byte in b"..%020d...%020d." % (1, 2):
        theirs.send(bytes([byte]))
        members.receive(1)
    assert members.heard == 2
    members.close()
    theirs.close()


def test_a_client_counts_messages_and_knows_its_position():
    client = Client(7)
    assert client.hello() == masked('{"type":"hello","version":1,"channels":{"7":null}}')
    client.take(b'{"type":"subscribed","channel":"7","recovered":true,"posit')
    client.take(b'ion":"5-12345"}{"type":"mess')
    client.take(b'age","position":"5-12344"}{"type":"message","position":"5-12345"}')
    assert (client.received, client.position, client.is_whole) == (2, "5-12345", True)
    assert client.hello().endswith(b'{"7":"5-12345"}}')


def test_only_nodes_take_part_where_several_are_needed():
    scenarios = load_scenarios()
    takes = {name: [peer.name for peer in PEERS.values() if scenarios[name].takes(peer)] for name in ("echo", "relay")}
    assert {"channels", "aiohttp", "fastws"} & set(takes["echo"]) == {"aiohttp", "fastws"}
    assert {"channels", "aiohttp", "fastws"} & set(takes["relay"]) == {"channels", "fastws"}


def test_each_part_of_the_page_stays_if_only_another_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "benchmarks.md")
    header = {"date": "today", "versions": {"fastws": "1"}}
    _, needs, asgi, nodes = (part.mark for part in report.PARTS)

    def write(scenario, case, figures):
        record = {"scenario": scenario, "case": case, "peer": "fastws", "round": 0, **figures}
        report.write({"header": header, "left_out": {}, "records": [record]})
        return report.PAGE.read_text()

    page = write("echo", "1 client", {"rate": 123})
    assert needs not in page
    assert nodes not in page
    page = write("logout", "3 nodes", {"p50_ms": 4.2, "max_ms": 5.3})
    assert page.index("123") < page.index(nodes) < page.index("4.2")
    page = write("tls-echo", "1 client", {"rate": 789})
    assert page.index("123") < page.index(needs) < page.index("789") < page.index(nodes) < page.index("4.2")
    page = write("asgi-echo", "1 client", {"rate": 321})
    assert page.index("789") < page.index(asgi) < page.index("321") < page.index(nodes)
    page = write("echo", "1 client", {"rate": 456})
    assert "123" not in page
    assert page.index("456") < page.index(needs) < page.index("789") < page.index(nodes) < page.index("4.2")
    assert page.count(nodes) == page.count(asgi) == 1


def test_applications_are_compared_with_applications():
    scenarios = load_scenarios()
    takes = {name: [peer.name for peer in PEERS.values() if scenarios[name].takes(peer)] for name in scenarios}
    assert {"fastapi", "fastapi-channels", "fastws"} & set(takes["echo"]) == {"fastws"}
    assert {"fastapi", "fastapi-channels", "fastws"} & set(takes["asgi-echo"]) == {"fastapi"}
    assert {"fastapi", "fastapi-channels", "fastws"} & set(takes["asgi-fanout"]) == {"fastapi", "fastapi-channels"}


def test_compression_and_tls_are_for_peers_that_can_do_it():
    scenarios = load_scenarios()
    takes = {name: [peer.name for peer in PEERS.values() if scenarios[name].takes(peer)] for name in scenarios}
    assert {"picows", "ws", "fastws", "send-loop"} & set(takes["compressed"]) == {"fastws", "ws"}
    assert {"picows", "ws", "fastws", "send-loop"} & set(takes["tls-fanout"]) == {"fastws", "picows", "ws"}


def test_percentiles():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(100), 0.99) == 99
