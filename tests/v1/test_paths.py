"""One endpoint at several paths."""

import pytest

from fastws import ConfigurationError, Listener, Server
from fastws.testing import connect, running


class Echo(Listener):
    def on_message(self, ws, message):
        return sorted(ws.path_parameters.items())


async def test_several_paths_share_one_manager():
    server = Server(port=0)
    manager = server.endpoint(["/ws", "/ws/{room}", "/ws/{room}/{desk}"], Echo())
    assert (manager.path, server.endpoints) == ("/ws", {"/ws": manager})
    async with (
        running(server) as url,
        connect(url + "/ws") as one,
        connect(url + "/ws/a") as two,
        connect(url + "/ws/a/b") as three,
    ):
        answers = []
        for client in (one, two, three):
            await client.send("?")
            answers.append(await client.receive_json())
        assert answers == [[], [["room", "a"]], [["desk", "b"], ["room", "a"]]]
        assert manager.connection_count == 3
        assert server._admission._router.targets == [manager.life]


async def test_limits_count_each_connection_once():
    server = Server(port=0, max_connections=2)
    server.endpoint(["/ws", "/ws/{room}"])
    async with running(server) as url, connect(url + "/ws"), connect(url + "/ws/a"):
        assert server._admission._is_full()


def test_a_path_that_is_taken_takes_the_others_with_it():
    server = Server()
    server.endpoint("/ws/{name}")
    for paths in (["/new", "/ws/{room}"], ["/a/{x}", "/a/{y}"]):
        with pytest.raises(ConfigurationError, match="is taken by"):
            server.endpoint(paths)
    assert list(server.endpoints) == ["/ws/{name}"]
    server.endpoint(["/new", "/a/{x}"])


def test_no_path_is_no_endpoint():
    with pytest.raises(ConfigurationError, match="needs a path"):
        Server().endpoint([])


def test_options_of_an_endpoint_at_several_paths_survive_reconfiguring():
    server = Server()
    manager = server.endpoint(["/ws", "/ws/{room}"], idle_timeout=7)
    server.reconfigure(idle_timeout=9, close_timeout=3)
    assert (manager.options.idle_timeout, manager.options.close_timeout) == (7, 3)
