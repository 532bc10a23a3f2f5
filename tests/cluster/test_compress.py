"""`compress=` through a cluster: what one node says goes out on the others as it asked for."""

from fastws.hub import Hub

from ..lib.deflate import compressing, was_compressed

SHORT, LONG = "tick " * 20, "tick " * 1_000
#: a message, what is asked for, and whether it goes out compressed
CASES = ((SHORT, None, False), (SHORT, True, True), (LONG, None, True), (LONG, False, False))


async def test_the_other_nodes_compress_as_the_one_that_was_asked(memory_fleet):
    here, there, _ = await memory_fleet.three(compression="shared")
    raw = await compressing(there.url, "/ws/cars?user=ann")
    await there.manager.listener.until("on_user_online")
    await there.manager.listener.until("on_subscribe")
    (ws,) = there.manager.connections.values()
    manager, hub = here.manager, Hub(here.server)
    for text, compress, is_compressed in CASES:
        manager.broadcast("cars", text, compress=compress)
        manager.broadcast("cars", text, users=["ann"], compress=compress)
        manager.send_to_user("ann", text, compress=compress)
        manager.send(ws.id, text, compress=compress)
        hub.broadcast("cars", text, compress=compress)
        hub.send(text, users=["ann"], compress=compress)
        hub.send(text, to=[ws.id], compress=compress)
        assert [await was_compressed(raw, text) for _ in range(7)] == [is_compressed] * 7
    raw.close()
