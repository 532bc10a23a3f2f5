"""What a connection tells of itself: since when it is there, and what it has not taken yet."""

import time

from ..lib.support import Recorder, eventually


async def test_a_connection_tells_since_when_it_is_there(serve, join):
    recorder = Recorder()
    site = await serve(recorder)
    before = time.time()
    client = await join(f"{site.url}/ws/cars")
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    assert before - 0.05 <= ws.since <= time.time() + 0.05
    await client.close()
    await recorder.until("on_close")
    assert (ws.since, ws.pending) == (None, 0)


async def test_what_a_connection_has_not_taken_is_pending(serve, dial):
    recorder = Recorder()
    site = await serve(recorder, max_backlog=1 << 24)
    raw = await dial(site.url, "/ws/cars", receive_buffer=4096)
    await recorder.until("on_subscribe")
    (ws,) = recorder.sockets
    assert ws.pending == 0
    for _ in range(8):
        ws.send(b"x" * (1 << 20))
    assert ws.pending > 1 << 20
    raw.close()
    await eventually(lambda: ws.pending == 0)
