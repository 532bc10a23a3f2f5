"""Dicts that all nodes have."""

import asyncio

import pytest

from fastws import Server
from fastws.cluster.shared import SharedDict
from fastws.errors import BackplaneError

from ..lib.fleet import link, stored
from ..lib.support import eventually


async def pair(fleet, name="blocked"):
    sites = [await fleet.start(shared=[name]) for _ in range(2)]
    return [site.server.shared(name) for site in sites]


async def test_a_value_is_here_at_once_and_elsewhere_after_a_round_trip(fleet):
    here, there = await pair(fleet)
    here["ann"] = ["bob", 1, None]
    assert here["ann"] == ["bob", 1, None]
    await eventually(lambda: there.get("ann") == ["bob", 1, None])
    del there["ann"]
    assert "ann" not in there
    await eventually(lambda: "ann" not in here)


async def test_set_and_delete_wait_for_the_store(fleet):
    here, there = await pair(fleet)
    await here.set("ann", 1)
    await eventually(lambda: dict(there) == {"ann": 1})
    await there.delete("ann")
    await eventually(lambda: dict(here) == {})
    with pytest.raises(KeyError):
        await there.delete("ann")


async def test_a_node_that_starts_has_all_values_before_anybody_connects(fleet):
    here, _ = await pair(fleet)
    for number in range(500):
        here[str(number)] = number
    await here.set("last", None)
    late = (await fleet.start(shared=["blocked"])).server.shared("blocked")
    assert dict(late) == {**{str(number): number for number in range(500)}, "last": None}


async def test_a_dict_of_a_running_server(memory_fleet):
    here, _ = await pair(memory_fleet)
    here["ann"] = 1
    site = await memory_fleet.start()
    late = site.server.shared("blocked")
    assert late is site.server.shared("blocked")
    await late.ready()
    assert dict(late) == {"ann": 1}
    assert dict(site.server.shared("another")) == {}


async def test_the_same_one_of_two_values_wins_everywhere(fleet):
    here, there = await pair(fleet)
    for number in range(100):
        here["ann"], there["ann"] = f"here {number}", f"there {number}"
    await here.set("last", 1)
    await there.set("last", 2)
    await eventually(lambda: here["last"] == there["last"] == 2)
    assert here["ann"] == there["ann"]


async def test_changes_are_told_once_wherever_they_are_made(memory_fleet):
    here, there = await pair(memory_fleet)
    told = []
    here.on_change(lambda *change: told.append(change))
    here["ann"] = [1]
    there["bob"] = 2
    there["bob"] = 2
    del there["ann"]
    await asyncio.sleep(0.05)
    assert told == [("ann", [1], False), ("bob", 2, False), ("ann", None, True)]


async def test_a_listener_that_fails_is_logged(memory_fleet, caplog):
    here, _ = await pair(memory_fleet)
    here.on_change(lambda *change: 1 / 0)
    here["ann"] = 1
    assert here["ann"] == 1
    assert "a listener of the shared dict 'blocked' failed" in caplog.text


async def test_what_the_store_does_not_take_waits_until_it_does(memory_fleet):
    sites = [await memory_fleet.start(shared=["blocked"]) for _ in range(2)]
    here, there = [site.server.shared("blocked") for site in sites]
    link(sites[0]).cut()
    with pytest.raises(BackplaneError):
        await here.set("ann", 1)
    assert here["ann"] == 1
    await asyncio.sleep(0.05)
    assert "ann" not in there
    link(sites[0]).mend()
    await eventually(lambda: there.get("ann") == 1)


async def test_what_the_store_has_lost_is_written_again(memory_fleet):
    sites = [await memory_fleet.start(shared=["blocked"]) for _ in range(2)]
    here, there = [site.server.shared("blocked") for site in sites]
    await here.set("kept", 1)
    await here.set("gone", 1)
    await here.set("old", 1)
    log = stored(sites[0], "$s:blocked", "")
    records, values, top = list(log.records), dict(log.values), log.top
    await here.set("old", 2)
    await there.set("new", 3)
    await here.delete("gone")
    log.records.clear()  # it comes back as it was
    log.records.extend(records)
    log.values.clear()
    log.values.update(values)
    log.top = top
    expected = {"kept": 1, "old": 2, "new": 3}
    late = None
    await eventually(
        lambda: {key: record.payload for key, record in log.values.items()} == {"kept": b"1", "old": b"2", "new": b"3"}
    )
    late = (await memory_fleet.start(shared=["blocked"])).server.shared("blocked")
    assert dict(here) == dict(there) == dict(late) == expected


async def test_what_was_set_before_the_start_is_written_then(memory_fleet):
    here, there = await pair(memory_fleet)
    shared = SharedDict("blocked")
    shared["ann"] = 1
    shared.join((await memory_fleet.start()).server._node)
    await eventually(lambda: here.get("ann") == there.get("ann") == 1)


async def test_without_a_backplane_it_is_a_dict_of_the_process():
    server = Server(port=0)
    shared = server.shared("blocked")
    shared["ann"] = ["bob"]
    async with server:
        await shared.set("cat", 1)
        await shared.delete("cat")
        assert dict(shared) == {"ann": ["bob"]}
    assert dict(server.shared("blocked")) == {"ann": ["bob"]}


@pytest.mark.parametrize(("key", "value"), [(1, 1), (None, 1), ("a", {1, 2}), ("a", object())])
def test_keys_are_strings_and_values_json(key, value):
    with pytest.raises(TypeError):
        SharedDict("blocked")[key] = value
