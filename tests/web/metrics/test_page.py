"""The page of metrics: who may read it, what it never says, and that documents, dashboard and alerts know it."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from fastws import ConfigurationError, Reject
from fastws.command.settings import Settings, load
from fastws.hooks import HookSettings
from fastws.pusher import PusherSettings
from fastws.standalone import create_server
from fastws.testing import running
from fastws.v1.raw import RawSettings
from fastws.web.metrics import COUNTERS, GAUGES, MetricsSettings
from tests.hooks.conftest import answers
from tests.web.metrics.conftest import API, READER, WRITER

ROOT = Path(__file__).parent.parent.parent.parent
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())
RULES = ALERTS["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
LABELS = {"endpoint", "code", "status", "event", "result", "policy", "type"}
OTHER_LABELS = {"by", "handler", "route", "version", "python", "engine", "le"}
# Channels, users and what else a peer chooses: none of it may be in a label.
SECRET = "a-name-that-nobody-knows"


@pytest.fixture
async def families(serve, backend):
    """Of a server that has had something to do with all its parts."""
    answers(backend, connect={"user": SECRET})
    hooks = HookSettings(url=backend.url, ask=("connect",), tell=("online", "occupied"), heartbeat=0)
    pusher = PusherSettings(app_id=1, key="key", secret="a secret of 24 bytes long", webhook_url=backend.url)
    site = await serve(hooks=hooks, api=API, raw=RawSettings(), pusher=pusher)
    client = await site.join(None, SECRET)
    raw = await site.dial(f"/raw/{SECRET}?x={SECRET}", subprotocols=None)
    await client.send({"type": "publish", "channel": SECRET, "message": SECRET})
    assert SECRET in await raw.text()
    await raw.ws.close(4999, SECRET)
    for path in (f"/api/channels/{SECRET}", f"/{SECRET}", f"/api/users/{SECRET}"):
        await site.get(path, Authorization=f"Bearer {READER}")
    async with aiohttp.ClientSession() as session:
        url = site.url.replace("ws:", "http:") + f"/{SECRET}"
        async with session.post(url, data=SECRET) as answer:
            assert answer.status == 404
    await backend.until(lambda: backend.events)
    return await site.families()


async def test_no_label_says_what_only_few_know(families):
    labels = [sample.labels for family in families.values() for sample in family.samples]
    assert SECRET not in str(labels)
    assert "127.0.0.1" not in str(labels)
    names = {name for each in labels for name in each}
    assert names >= {"endpoint", "status", "code", "event", "result", "type", "route"}
    assert names <= LABELS | OTHER_LABELS


async def test_names_are_as_prometheus_wants_them(families):
    for name, family in families.items():
        assert re.fullmatch("(fastws|process)(_[a-z]+)+", name)
        assert family.documentation
        assert not re.search("milli|minutes|_kb|_ms", name)
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")
            if family.type == "histogram" and sample.name.endswith("_bucket"):
                assert float(sample.labels["le"]) > 0
    histograms = {name for name, family in families.items() if family.type == "histogram"}
    assert {name.rpartition("_")[2] for name in histograms} == {"seconds"}


def documented():
    """The rows of the table in docs/metrics.md: name -> (type, labels)."""
    rows = re.findall(r"^\| `(fastws_\w+)` \| (\w+) \|([^|]*)\|([^|]*)\|$", PAGE, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}


async def test_the_page_of_the_documentation_has_them_all(families):
    found = {
        name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for name, family in families.items()
        if name.startswith("fastws_")
    }
    # Labels are only seen where something was counted; those of the others are taken from the page.
    known = documented()
    assert found.keys() == known.keys()
    for name, (kind, labels) in found.items():
        assert known[name][0] == kind, name
        assert labels == known[name][1] or not families[name.removesuffix("_total")].samples, name
    assert {f"fastws_{name}" for name in GAUGES} | {f"fastws_{name}_total" for name in COUNTERS} <= known.keys()


def queries():
    """Each query of the dashboard, of the alerts and of the page."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for query in re.findall(r"`([^`]*\b(?:rate|sum)\([^`]*)`", PAGE):
        yield "metrics.md", query


def names_in(query):
    return set(re.findall(r"\b(?:fastws|process)_\w+", query))


async def test_each_name_in_a_query_is_one(families):
    known = {sample.name for family in families.values() for sample in family.samples}
    # Those of which nothing was counted yet have no samples.
    known |= {f"{name}_total" for name, family in families.items() if family.type == "counter"}
    table = documented()
    for where, query in queries():
        names = names_in(query)
        assert names, where
        assert names <= known, where
        # Whatever only grows is shown as a rate, and quantiles are taken of buckets.
        grows = [name for name in names if name.endswith(("_total", "_bucket"))]
        assert [name for name in grows if not re.search(rf"rate\({name}\b", query)] == [], where
        # A label that is filtered or grouped by is one of that metric, or of Prometheus.
        grouped = {label.strip() for group in re.findall(r"(?:by|on) \(([^)]*)\)", query) for label in group.split(",")}
        filtered = set(re.findall(r"(\w+)(?:=~|!=|=)\"", query))
        metrics = [re.sub("_bucket$", "", name) for name in names]
        labels = {label for name in metrics if name in table for label in table[name][1]}
        assert grouped | filtered <= labels | {"le", "job", "instance"}, where


def test_the_dashboard_has_its_rows_and_variables():
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    about = "Overview", "Connections", "Delivery", "Slow readers", "Handshakes", "Hooks", "Nodes", "Compression"
    assert rows == list(about)
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "job", "instance"]
    shown = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    assert all('{job=~"$job",instance=~"$instance"' in query for query in shown)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


def test_the_dashboard_shows_every_metric():
    shown = {name for _, query in queries() for name in names_in(query)}
    shown |= names_in(DASHBOARD["templating"]["list"][1]["definition"])
    assert {name.removesuffix("_bucket") for name in shown} >= documented().keys() - {"fastws_draining"}


def test_there_are_five_alerts_that_say_what_to_do():
    assert len(RULES) == 5
    for rule in RULES:
        assert rule["annotations"].keys() == {"summary", "description"}
        assert re.fullmatch(r"\d+m", rule["for"])


# -- who may read it


async def test_a_key_for_reading_is_needed(serve):
    site = await serve(metrics=MetricsSettings(), api=API)
    assert (await site.get("/metrics")).status == 401
    assert (await site.get("/metrics", Authorization="Bearer wrong")).status == 401
    assert (await site.get("/metrics", Authorization=f"Bearer {WRITER}")).status == 403
    answer = await site.get("/metrics", Authorization=f"Bearer {READER}")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert answer.headers["cache-control"] == "no-store"


async def test_without_any_key_nobody_may(serve):
    site = await serve(metrics=MetricsSettings())
    assert (await site.get("/metrics", Authorization=f"Bearer {READER}")).status == 403


async def test_it_is_where_the_settings_say_and_only_then(serve):
    site = await serve(metrics=MetricsSettings(path="/internal/figures", public=True))
    assert "fastws_connections" in (await site.get("/internal/figures")).text
    assert (await site.get("/metrics")).status == 404
    assert (await (await serve(metrics=None)).get("/metrics")).status == 404


async def test_a_port_of_its_own_needs_no_key_and_ends_with_the_server(serve, unused_tcp_port):
    site = await serve(metrics=MetricsSettings(listen=f"127.0.0.1:{unused_tcp_port}"), api=API)
    assert (await site.get("/metrics")).status == 404
    url = f"http://127.0.0.1:{unused_tcp_port}/metrics"
    async with aiohttp.request("GET", url) as answer:
        assert (answer.status, "fastws_build_info" in await answer.text()) == (200, True)
    async with aiohttp.request("GET", url.replace("metrics", "api/info")) as answer:
        assert answer.status == 404
    await site.server.stop()
    with pytest.raises(OSError, match="refused"):
        await asyncio.open_connection("127.0.0.1", unused_tcp_port)


def test_a_port_that_is_none_gets_a_sentence():
    settings = Settings(options={"port": 0}, metrics=MetricsSettings(listen="9100"))
    with pytest.raises(ConfigurationError, match=r"\[metrics\] listen='9100' is not host:port"):
        create_server(settings)


async def test_it_speaks_openmetrics(serve):
    site = await serve()
    answer = await site.get("/metrics", Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(answer.text)}
    assert families["fastws_connections"].samples[0].labels == {"endpoint": "/ws"}


async def test_the_process_has_its_own_figures(serve):
    found = await (await serve()).scrape()
    assert 0 < found["process_open_fds",] < found["process_max_fds",]


async def test_a_server_of_ones_own_has_it_too():
    (block,) = re.findall("```python\n(.*?)```", PAGE, re.DOTALL)
    names = {}
    exec(block, names)
    server = names["server"]
    server.reconfigure(port=0)
    async with running(server) as url, aiohttp.request("GET", f"http{url[2:]}/metrics") as answer:
        assert 'fastws_connections{endpoint="/ws/{channel}"} 0.0' in await answer.text()


# -- what is needed for it


def test_the_file_says_where_it_is(tmp_path):
    file = tmp_path / "fastws.toml"
    file.write_text('[metrics]\npath = "/figures"\npublic = true\n')
    assert load(file, {}, {}).metrics == MetricsSettings(path="/figures", public=True)
    assert load(file, {"FASTWS_METRICS_PUBLIC": "false"}, {}).metrics.public is False
    file.write_text('[metrics]\npath = "figures"\n')
    with pytest.raises(ConfigurationError, match=r"\[metrics\] path"):
        load(file, {}, {})


def test_a_path_that_is_taken_is_refused():
    with pytest.raises(ConfigurationError, match=r"GET /fastws\.js is served already"):
        create_server(Settings(metrics=MetricsSettings(path="/fastws.js")))


def test_without_prometheus_client_one_sentence_says_so(tmp_path):
    file = tmp_path / "fastws.toml"
    file.write_text("[metrics]\n")
    hide = "import sys; sys.modules['prometheus_client'] = None; from fastws.command.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hide, "serve", "-c", str(file)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "[metrics] needs prometheus_client: pip install 'fastws-server[metrics]'" in line


@pytest.mark.parametrize("module", ["fastws", "fastws.standalone"])
def test_nobody_else_has_it_imported(module):
    script = f"import sys, {module}; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


def test_a_wrong_key_is_a_reject():
    with pytest.raises(Reject):
        create_server(Settings()).state.keys.check({}, "read")
