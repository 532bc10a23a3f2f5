"""Whom NATS lets in, and which NATS we take: each refusal is one sentence, at the start."""

import asyncio
import json
import ssl

import pytest

from fastws import ConfigurationError
from fastws.backplane.base import NodeKey
from fastws.backplane.nats import NATS

from ..lib.certificates import Authority
from ..lib.nats import NATSServer
from ..lib.support import eventually, records_naming, unused_port
from .peers import CARS, ROOM, Backplanes

USERS = 'authorization { users: [ { user: ann, password: "p@ss word" } ] }'
ONLY_OURS = """authorization { users: [ { user: ann, password: "secret", permissions: {
  publish: ["fastws.>", "$JS.API.>"], subscribe: ["fastws.>", "_INBOX.>"] } } ] }"""


@pytest.fixture
def started(tmp_path):
    """`started(config)` is a server with more configuration."""
    servers = []
    with unused_port() as port:

        def start(config="", **options):
            server = NATSServer(tmp_path, port, config, **options)
            servers.append(server)
            server.start()
            return server

        yield start
        for server in servers:
            server.stop()


class Nobody:
    def on_connected(self):
        raise AssertionError("this must not connect")

    def on_disconnected(self, reason):
        pass


async def refused(url, match, **options):
    """The sentence with which a URL is refused."""
    backplane = NATS(url, **options)
    with pytest.raises(ConfigurationError, match=match) as raised:
        await backplane.start(NodeKey("a", 1), Nobody(), prefix="fastws", timeout=10.0, buffer=1000)
    await backplane.stop()
    text = str(raised.value)
    assert "\n" not in text
    return text


async def works(url, prefix="fastws", **options):
    nodes = Backplanes(lambda: NATS(url, **options))
    nodes.prefix = prefix
    a, b = await nodes.node("a"), await nodes.node("b")
    heard, followed = await b.listen(CARS), await b.follow(ROOM)
    a.backplane.send(CARS, b"hi")
    await a.append(ROOM, b"1")
    await eventually(lambda: heard == [b"hi"] and followed.payloads == [b"1"])
    await a.backplane.beat(b"")
    assert "@" not in a.backplane.url
    await nodes.stop()


async def test_user_and_password(started):
    port = started(USERS).port
    await works(f"nats://ann:p%40ss%20word@127.0.0.1:{port}")
    for login in ("ann:wrong@", "bob:p%40ss%20word@", "token@", ""):
        text = await refused(f"nats://{login}127.0.0.1:{port}", "refuses the user, password or token")
        assert "wrong" not in text
        assert f"127.0.0.1:{port}" in text


async def test_token(started):
    port = started('authorization { token: "s3cret" }').port
    await works(f"nats://s3cret@127.0.0.1:{port}")
    await refused(f"nats://other@127.0.0.1:{port}", "refuses the user, password or token")


async def test_a_user_with_the_rights_that_the_documentation_names(started):
    port = started(ONLY_OURS).port
    await works(f"nats://ann:secret@127.0.0.1:{port}")


async def test_a_password_that_is_changed_later_is_said_once(started, caplog):
    server = started('authorization { token: "s3cret" }')
    nodes = Backplanes(lambda: NATS(f"nats://s3cret@127.0.0.1:{server.port}"))
    a = await nodes.node("a")
    server.stop()
    changed = started('authorization { token: "other" }')
    await eventually(lambda: records_naming(caplog, "refuses the user, password or token"))
    await asyncio.sleep(0.5)
    assert len(records_naming(caplog, "refuses the user, password or token")) == 1
    changed.stop()
    started('authorization { token: "s3cret" }')
    await eventually(lambda: a.backplane.is_connected)
    await nodes.stop()


# -- TLS


def tls(folder, authority, **more):
    certificate, key = authority.issue("server")
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'


async def test_tls(started, tmp_path):
    authority = Authority(tmp_path)
    port = started(tls(tmp_path, authority)).port
    context = ssl.create_default_context(cafile=authority.path)
    for scheme in ("tls", "nats"):
        await works(f"{scheme}://127.0.0.1:{port}", prefix=scheme, tls=context)
    text = await refused(f"tls://127.0.0.1:{port}", "is not to be trusted")
    assert f"127.0.0.1:{port}" in text


async def test_a_server_without_tls_is_not_taken_for_one_with(started):
    port = started().port
    await refused(f"tls://127.0.0.1:{port}", "has no TLS: begin its URL with nats://")


# -- other servers


async def test_one_without_jetstream_is_refused(started):
    port = started(jetstream=False).port
    await refused(f"nats://127.0.0.1:{port}", "has no JetStream for this user")


@pytest.mark.parametrize("version", ["2.9.10", "2.11.3", "1.4", "other"])
async def test_an_old_version_is_refused(version):
    async def greet(reader, writer):
        writer.write(b"INFO " + json.dumps({"version": version, "headers": True, "jetstream": True}).encode() + b"\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    text = await refused(f"nats://127.0.0.1:{port}", "fastws needs 2.11.4 or later")
    assert version in text
    server.close()


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {\r\n", b"INFO 7\r\n", b"x" * 100_000]
)
async def test_what_is_no_nats_is_tried_again(greeting, caplog):
    async def greet(reader, writer):
        writer.write(greeting)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    backplane = NATS(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await backplane.start(NodeKey("a", 1), Nobody(), prefix="fastws", timeout=10.0, buffer=1000)
    assert len(records_naming(caplog, "does not speak NATS")) == 1
    assert not backplane.is_connected
    await backplane.stop()
    server.close()
