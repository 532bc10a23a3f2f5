"""Logs: appended to, followed, read from any position, broken, cleared."""

import asyncio

import pytest

from fastws.backplane.base import LogName
from fastws.logs import History, Latest, Position

from ..lib.support import eventually
from .peers import PRICES, ROOM
from .test_messages import HOSTILE


def payloads(read):
    return [record.payload for record in read.records]


async def test_a_log_that_never_was_has_a_position(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    zero = await a.backplane.read(ROOM, None, 0)
    assert (zero.status, list(zero.records)) == ("ok", [])
    assert await b.top(ROOM) == zero.top
    await a.append(ROOM, b"1", b"2")
    read = await b.backplane.read(ROOM, zero.top, 10)
    assert (read.status, payloads(read)) == ("ok", [b"1", b"2"])


async def test_records_have_growing_positions(backplanes):
    a = await backplanes.node("a")
    zero = await a.top(ROOM)
    positions = await a.append(ROOM, *[b"%d" % number for number in range(50)])
    assert [zero, *positions] == sorted({zero, *positions})
    assert len({position.offset for position in positions}) == 50
    assert await a.top(ROOM) == positions[-1]


async def test_followers_are_told_of_each_record_in_the_order_of_the_log(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    here, there = await a.follow(ROOM), await b.follow(ROOM)
    zero = await a.top(ROOM)
    said = await asyncio.gather(
        a.append(ROOM, *[b"a%d" % number for number in range(200)]),
        b.append(ROOM, *[b"b%d" % number for number in range(200)]),
    )
    await eventually(lambda: len(here.records) == len(there.records) == 400)
    assert here.records == there.records
    assert [record.position for record in here.records] == sorted(said[0] + said[1])
    assert here.is_chained
    assert there.is_chained
    assert here.calls[0][0] == there.calls[0][0] == zero
    for sender in (b"a", b"b"):
        mine = [payload for payload in here.payloads if payload.startswith(sender)]
        assert mine == [b"%s%d" % (sender, number) for number in range(200)]
    assert {record.key for record in here.records} == {None}


async def test_whatever_is_appended_after_follow_returned_is_told(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    for number in range(20):
        log = LogName("/ws", f"room{number}", History())
        followed = await b.follow(log)
        await a.append(log, b"hi")
        await eventually(lambda followed=followed: followed.payloads == [b"hi"])


async def test_who_follows_no_more_is_told_nothing(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    first = await b.follow(ROOM)
    await a.append(ROOM, b"1")
    await eventually(lambda: first.payloads == [b"1"])
    b.backplane.unfollow([ROOM])
    second = await b.follow(ROOM)
    await a.append(ROOM, b"2")
    await eventually(lambda: second.payloads == [b"2"])
    assert first.payloads == [b"1"]


async def test_a_log_is_read_from_any_position_that_it_reaches(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    positions = [await a.top(ROOM), *await a.append(ROOM, *[b"%d" % number for number in range(1, 6)])]
    for number, since in enumerate(positions):
        read = await b.backplane.read(ROOM, since, 5)
        assert (read.status, read.top) == ("ok", positions[-1])
        assert payloads(read) == [b"%d" % n for n in range(number + 1, 6)]
        assert [record.position for record in read.records] == positions[number + 1 :]


async def test_the_position_before_the_kept_ones_is_good_and_older_ones_are_trimmed(backplanes):
    a = await backplanes.node("a")
    positions = await a.append(ROOM, *[b"%d" % number for number in range(100)])
    read = await a.backplane.read(ROOM, positions[94], 10)
    assert (read.status, payloads(read)) == ("ok", [b"%d" % number for number in range(95, 100)])
    assert (await a.backplane.read(ROOM, positions[20], 10)).status == "trimmed"
    assert payloads(await a.backplane.snapshot(ROOM))[-5:] == [b"%d" % number for number in range(95, 100)]


async def test_more_than_the_limit_is_too_many_and_never_a_part(backplanes):
    a = await backplanes.node("a")
    zero = await a.top(ROOM)
    (*_, last) = await a.append(ROOM, b"1", b"2", b"3")
    read = await a.backplane.read(ROOM, zero, 2)
    assert (read.status, read.top, list(read.records)) == ("too_many", last, [])


async def test_a_position_that_is_not_of_the_log_is_never_good(backplanes):
    a = await backplanes.node("a")
    first, last = await a.append(ROOM, b"1", b"2")
    for since in [
        Position(last.offset, last.tag + 1),
        Position(last.offset, last.tag - 1_000_000),
        Position(last.offset + 1, last.tag),
        Position(last.offset + 10_000, last.tag + 10),
    ]:
        read = await a.backplane.read(ROOM, since, 10)
        assert (read.status, read.top, list(read.records)) == ("unknown", last, []), since
    read = await a.backplane.read(ROOM, Position(first.offset, first.tag + 1_000_000), 10)
    assert (read.status, list(read.records)) == ("unknown", [])


async def test_a_payload_and_a_key_may_be_anything(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    room, prices = await b.follow(ROOM), await b.follow(PRICES)
    said = [b"", b"\n", b" 1 2\n", bytes(range(256)), b"x" * 300_000]
    await a.append(ROOM, *said)
    log = LogName("/ws", "many keys", Latest(changes=100))
    for key in HOSTILE[1:]:
        await a.put(PRICES, key, key.encode() + b"\0\n 1")
        await a.put(log, key, key.encode() + b"\0\n 1")
    await eventually(lambda: len(room.records) == len(said) and len(prices.records) == len(HOSTILE) - 1)
    assert room.payloads == said
    expected = [(key, key.encode() + b"\0\n 1") for key in HOSTILE[1:]]
    assert [record[1:] for record in prices.records] == expected
    assert [record[1:] for record in (await b.backplane.snapshot(log)).records] == expected


async def test_names_of_logs_may_be_any_text_and_do_not_meet(backplanes):
    a = await backplanes.node("a")
    logs = [LogName(endpoint, name, History()) for endpoint in ("/ws", "/a b") for name in HOSTILE[1:]]
    for number, log in enumerate(logs):
        await a.append(log, b"%d" % number)
    for number, log in enumerate(logs):
        assert payloads(await a.backplane.snapshot(log)) == [b"%d" % number]


async def test_an_id_is_stored_once(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    followed = await b.follow(ROOM)
    (first,) = await a.append(ROOM, b"1", id="x")
    await a.append(ROOM, *[b"%d" % number for number in range(2, 100)])
    (again,) = await b.append(ROOM, b"other", id="x")
    same_turn = await b.append(ROOM, b"100", b"100", id="y")
    (last,) = await a.append(ROOM, b"101")
    await eventually(lambda: followed.records and followed.records[-1].position == last)
    assert again == first
    assert same_turn[0] == same_turn[1]
    assert followed.payloads == [b"%d" % number for number in range(1, 102)]


async def test_the_last_thousand_ids_are_known(backplanes):
    a = await backplanes.node("a")
    log = LogName("/ws", "ids", History(size=10))
    futures = [a.backplane.append(log, b"", id=str(number)) for number in range(1200)]
    positions = [await future for future in futures]
    for number in (200, 600, 1199):
        assert await a.append(log, b"", id=str(number)) == [positions[number]]


async def test_two_logs_share_nothing(backplanes):
    a = await backplanes.node("a")
    other = LogName("/other", ROOM.name, ROOM.keep)
    await a.append(ROOM, b"1", id="x")
    zero = await a.top(other)
    await a.append(other, b"2", id="x")
    assert payloads(await a.backplane.read(other, zero, 10)) == [b"2"]


async def test_the_ends_of_many_logs(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    logs = [LogName("/ws", f"room{number}", History()) for number in range(300)]
    said = [(await a.append(log, b"hi"))[0] if number % 3 else None for number, log in enumerate(logs)]
    tops = await b.backplane.tops(logs)
    assert [top for number, top in enumerate(tops) if number % 3] == [top for top in said if top]
    assert await a.backplane.tops(logs) == tops
    assert await a.backplane.tops([]) == []


# -- keys


async def test_of_each_key_the_newest_record_counts(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    positions = [await a.top(PRICES)]
    for key, payload in [("AAPL", b"1"), ("MSFT", b"2"), ("AAPL", b"3"), ("MSFT", None)]:
        positions.append(await a.put(PRICES, key, payload))
    read = await b.backplane.read(PRICES, positions[0], 10)
    assert [tuple(record) for record in read.records] == [(positions[3], "AAPL", b"3"), (positions[4], "MSFT", None)]
    read = await b.backplane.read(PRICES, positions[3], 10)
    assert [tuple(record) for record in read.records] == [(positions[4], "MSFT", None)]
    snapshot = await b.backplane.snapshot(PRICES)
    assert snapshot.top == positions[4]
    assert [tuple(record) for record in snapshot.records] == [(positions[3], "AAPL", b"3")]


async def test_followers_are_told_of_keys_and_deletions(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    followed = await b.follow(PRICES)
    await a.put(PRICES, "AAPL", b"")
    await a.put(PRICES, "AAPL", None)
    await a.put(PRICES, "never was", None)
    await eventually(lambda: len(followed.records) == 3)
    assert [record[1:] for record in followed.records] == [("AAPL", b""), ("AAPL", None), ("never was", None)]
    assert followed.is_chained


async def test_values_outlive_the_changes_that_are_kept(backplanes):
    a = await backplanes.node("a")
    zero = await a.top(PRICES)
    for number in range(100):
        await a.put(PRICES, f"key{number}", b"%d" % number)
    assert (await a.backplane.read(PRICES, zero, 1000)).status == "trimmed"
    snapshot = await a.backplane.snapshot(PRICES)
    assert [(record.key, record.payload) for record in snapshot.records] == [
        (f"key{number}", b"%d" % number) for number in range(100)
    ]
    assert [record.position for record in snapshot.records] == sorted(record.position for record in snapshot.records)


# -- new beginnings


async def test_a_log_that_lost_nothing_is_not_broken(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    followed = await b.follow(ROOM)
    zero = await a.top(ROOM)
    first, last = await a.append(ROOM, b"1", b"2")
    for seen in (zero, first, last):
        assert await b.backplane.broken(ROOM, seen) == last
    (last,) = await a.append(ROOM, b"3")
    await eventually(lambda: followed.payloads == [b"1", b"2", b"3"])
    assert followed.begun == []


@pytest.mark.parametrize("ahead", [1, 0, 50])
async def test_a_broken_log_begins_anew_above_all_that_was_seen(backplanes, ahead):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    followed = await b.follow(ROOM)
    positions = await a.append(ROOM, b"1", b"2")
    seen = Position(positions[1].offset + ahead, positions[1].tag - 7)
    base = await a.backplane.broken(ROOM, seen)
    assert base.offset >= seen.offset
    assert base.tag not in (seen.tag, positions[1].tag)
    await eventually(lambda: followed.begun == [(base, "unknown")])
    for since in (*positions, seen):
        assert (await c.backplane.read(ROOM, since, 10)).status in ("unknown", "trimmed")
    assert (await a.backplane.read(ROOM, base, 10)).status == "ok"
    (after,) = await a.append(ROOM, b"3")
    assert after.offset > seen.offset
    assert payloads(await c.backplane.read(ROOM, base, 10)) == [b"3"]
    await eventually(lambda: followed.payloads == [b"1", b"2", b"3"])
    assert followed.is_chained


async def test_many_nodes_break_a_log_once(backplanes):
    a, b, c = [await backplanes.node(name) for name in "abc"]
    followed = await c.follow(ROOM)
    (last,) = await a.append(ROOM, b"1")
    seen = Position(last.offset + 3, last.tag - 7)
    tops = await asyncio.gather(*[peer.backplane.broken(ROOM, seen) for peer in (a, b, c)])
    (end,) = await a.append(ROOM, b"2")
    assert await b.backplane.broken(ROOM, seen) == end
    await eventually(lambda: followed.payloads == [b"1", b"2"])
    assert len({*tops, *[position for position, _ in followed.begun]}) == 1


async def test_a_broken_log_keeps_the_values_of_its_keys_and_forgets_its_ids(backplanes):
    a = await backplanes.node("a")
    position = await a.backplane.append(PRICES, b"1", key="AAPL", id="x")
    base = await a.backplane.broken(PRICES, Position(position.offset + 5, 1))
    snapshot = await a.backplane.snapshot(PRICES)
    assert snapshot.top == base
    assert [record[1:] for record in snapshot.records] == [("AAPL", b"1")]
    assert await a.backplane.append(PRICES, b"2", key="AAPL", id="x") > base


async def test_a_cleared_log_is_empty(backplanes):
    a, b = await backplanes.node("a"), await backplanes.node("b")
    for log, key in ((ROOM, None), (PRICES, "AAPL")):
        followed = await b.follow(log)
        last = await a.backplane.append(log, b"1", key=key, id="x")
        base = await a.backplane.clear(log)
        assert base.offset >= last.offset
        assert base != last
        await eventually(lambda followed=followed, base=base: followed.begun == [(base, "cleared")])
        assert (await b.backplane.read(log, last, 10)).status in ("unknown", "trimmed")
        snapshot = await b.backplane.snapshot(log)
        assert (snapshot.top, list(snapshot.records)) == (base, [])
        assert (await a.backplane.append(log, b"2", key=key, id="x")).offset > last.offset
        await eventually(lambda followed=followed: followed.payloads == [b"1", b"2"])
        assert followed.is_chained
