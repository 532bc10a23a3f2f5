"""A real nginx in front: the listener sees the client, whatever that says, and clients are counted, not nginx."""

import asyncio
import contextlib
import re
import shutil
from pathlib import Path

import aiohttp
import pytest

from ..lib.http import application_of_client
from ..lib.raw import TIMEOUT
from ..lib.support import Recorder, counted, eventually, nothing_left, unused_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
needs_stream = pytest.mark.skipif(not STREAM.exists(), reason="nginx has no stream module")

HTTP = """
http {
    access_log off;
    map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
    upstream fastws { server 127.0.0.1:%(upstream)d; keepalive 4; }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://fastws;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Request-ID $request_id;
        }
    }
}
"""

PROXY_PROTOCOL = """
stream {
    server {
        listen 127.0.0.1:%(port)d;
        proxy_pass 127.0.0.1:%(upstream)d;
        proxy_protocol on;
    }
}
"""

SPOOFED = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
PROXIES = {"trusted_proxies": ["127.0.0.1"]}


@pytest.fixture
async def nginx(tmp_path):
    """`await nginx(site, config)` starts nginx in front of a site. Returns the port to connect to."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(site, config):
            port = stack.enter_context(unused_port())
            text = f"pid {tmp_path}/pid;\ndaemon off;\nerror_log stderr;\nevents {{}}\n"
            if "stream {" in config:
                text = f"load_module {STREAM};\n{text}"
            paths = "".join(
                f"{kind}_temp_path {tmp_path}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            config = config.replace("http {", f"http {{\n{paths}")
            tmp_path.joinpath("nginx.conf").write_text(text + config % {"port": port, "upstream": site.server.port})
            command = [NGINX, "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            stack.push_async_callback(process.wait)
            stack.callback(process.terminate)
            async with asyncio.timeout(TIMEOUT):
                while True:
                    assert process.returncode is None, (await process.stderr.read()).decode()
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0))
                    except ConnectionRefusedError:
                        await asyncio.sleep(0.01)
                    else:
                        writer.close()
                        return port

        yield start


@pytest.fixture
async def client_at():
    """`client_at(host)` is an HTTP client with an address of its own."""
    async with contextlib.AsyncExitStack() as stack:

        async def enter(host):
            connector = aiohttp.TCPConnector(local_addr=(host, 0))
            return await stack.enter_async_context(aiohttp.ClientSession(connector=connector))

        yield enter


FRONTS = pytest.mark.parametrize(
    ("config", "options"),
    [
        pytest.param(HTTP, PROXIES, id="X-Forwarded-For"),
        pytest.param(PROXY_PROTOCOL, {**PROXIES, "proxy_protocol": "required"}, id="PROXY", marks=needs_stream),
    ],
)


@FRONTS
async def test_the_listener_sees_the_client(serve, nginx, client_at, wire, config, options):
    site = await serve(recorder := Recorder(), http=application_of_client, **options)
    port = await nginx(site, config)
    for host in ("127.0.0.2", "127.0.0.3"):
        client = await client_at(host)
        async with client.ws_connect(f"http://127.0.0.1:{port}/ws/cars", headers=SPOOFED) as ws:
            await ws.send_str("hi")
            assert await recorder.until("on_message") == ("hi",)
        for _ in range(3):
            async with client.get(f"http://127.0.0.1:{port}/", headers=SPOOFED) as response:
                scheme, seen = (await response.text()).split()
                assert (scheme, seen.split(":")[0]) == ("https" if config is HTTP else "http", host)
    seen = [request.remote_address[0] for (request,) in recorder.of("on_handshake")]
    assert seen == ["127.0.0.2", "127.0.0.3"]
    assert {request.is_secure for (request,) in recorder.of("on_handshake")} == {config is HTTP}


@FRONTS
async def test_clients_are_counted_not_nginx(serve, nginx, client_at, config, options):
    site = await serve(max_connections_per_ip=2, **options)
    port = await nginx(site, config)
    url = f"http://127.0.0.1:{port}/ws/cars"
    clients = {host: await client_at(host) for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4")}
    opened = [await client.ws_connect(url, headers=SPOOFED) for client in clients.values() for _ in range(2)]
    await eventually(lambda: counted(site) == 3)
    for client in clients.values():
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(url, headers=SPOOFED)
        assert refused.value.status == 503
    await opened[0].close()
    await eventually(lambda: site.manager.connection_count == 5)
    async with clients["127.0.0.2"].ws_connect(url):
        pass
    for ws in opened:
        await ws.close()
    for client in clients.values():
        await client.close()
    await eventually(lambda: nothing_left(site))


async def test_whoever_goes_past_nginx_says_nothing(serve, client_at):
    site = await serve(recorder := Recorder(), **PROXIES)
    client = await client_at("127.0.0.2")
    async with client.ws_connect(f"{site.url}/ws/cars", headers=SPOOFED):
        pass
    (asked,) = recorder.of("on_handshake")[0]
    assert asked.remote_address[0] == "127.0.0.2"


async def test_a_refusal_has_the_id_that_is_in_nginxs_log(serve, nginx, client_at, caplog):
    site = await serve(**PROXIES)
    client = await client_at("127.0.0.2")
    async with client.get(f"http://127.0.0.1:{await nginx(site, HTTP)}/nowhere") as response:
        said = (await response.json())["error"]["request_id"]
    assert re.fullmatch("[0-9a-f]{32}", said)
    assert caplog.records[-1].request_id == said
