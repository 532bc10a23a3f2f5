"""Every wrong frame gets an error that says what is wrong with it, and costs nothing else."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ..lib.v1 import Named, rules

FRAMES = {
    "hello": {"version": 1},
    "subscribe": {"channel": "cars"},
    "unsubscribe": {"channel": "cars"},
    "publish": {"channel": "cars", "message": 1},
    "whisper": {"channel": "cars", "to": ["bob"], "message": 1},
    "typing": {"channel": "cars"},
    "presence": {"channel": "cars"},
    "call": {"method": "time"},
    "authenticate": {"token": "x"},
}
WRONG = {
    "version": [None, "1", 2, 1.5, [], {}, True],
    "channel": [None, 1, 1.5, [], {}, True],
    "position": [1, [], {}, "x" * 65],
    "client": [1, [], "x" * 129],
    "to": [None, "bob", [], {}, [None], [1.5], ["bob", True], [[]], ["x"] * 1001],
    "exclude": [1, "others", True, []],
    "method": [None, 1, "", "x" * 129, []],
    "token": [None, 1, []],
    "id": [1.5, True, [], {}, 2**53, -(2**53), 10**30, "x" * 65],
}
CASES = [
    (kind, field, value)
    for kind, fields in FRAMES.items()
    for field in [
        *fields,
        *{"hello": ("client",), "subscribe": ("position",), "publish": ("exclude",)}.get(kind, ()),
        "id",
    ]
    for value in WRONG.get(field, ())
]
ANSWERS = {"welcome", "subscribed", "unsubscribed", "message", "whisper", "typing", "presence", "ack", "error"}
CODES = {
    "bad_json",
    "bad_field",
    "unknown_type",
    "bad_channel",
    "unknown_channel",
    "unauthenticated",
    "forbidden",
    "not_a_member",
    "no_recipient",
    "too_many",
    "refused",
}


@pytest.mark.parametrize("field", sorted({field for _, field, _ in CASES}))
async def test_a_field_of_the_wrong_type_is_named(serve, field):
    client = await (await serve()).join("ann", "cars")
    cases = [case for case in CASES if case[1] == field]
    assert cases
    for kind, _, value in cases:
        frame = {"type": kind, "id": 7, **FRAMES[kind], field: value}
        error = await client.ask(frame)
        assert (error["type"], error["code"], error["retry"]) == ("error", "bad_field", False), frame
        assert f'"{field}' in error["message"], (frame, error)
        assert error.get("id") == (None if field == "id" else 7)
        assert error.get("channel") == (frame.get("channel") if field != "channel" else None)
    assert await client.so_far() == []


@pytest.mark.parametrize(("kind", "field"), [(kind, field) for kind, fields in FRAMES.items() for field in fields])
async def test_a_missing_field_is_named(serve, kind, field):
    client = await (await serve()).join("ann", "cars")
    frame = {"type": kind, "id": "x", **FRAMES[kind]}
    del frame[field]
    error = await client.ask(frame)
    assert (error["code"], error["message"], error["id"]) == ("bad_field", f'"{field}" is missing', "x")


@pytest.mark.parametrize(
    "frame",
    [
        "",
        " ",
        "nonsense",
        "[]",
        "1",
        "null",
        '"{}"',
        "[{}]",
        '{"type": "typing"',
        '{"type": "typing", "channel": "cars"} {}',
        '{"type": "publish", "channel": "cars", "message": NaN}',
        '{"type": "publish", "channel": "cars", "message": [1,]}',
        '{"type": "publish", "channel": "cars", "message": 01}',
        '{"type": "publish", "channel": "cars", "message": "\\ud800"}',
        '{"type": "publish", "channel": "cars", "message": "\t"}',
        "{'type': 'typing'}",
        "\ufeff{}",
        b"{}",
        b"\xff\xfe\x00",
        b"",
        "[" * 200_000,
        '{"a":' * 200_000,
    ],
    ids=lambda frame: repr(frame[:40]),
)
async def test_what_is_no_json_object_is_bad_json(serve, frame):
    site = await serve()
    client, other = await site.join("ann", "cars"), await site.join("bob", "cars")
    error = await client.ask(frame)
    assert (error["type"], error["code"], error["retry"]) == ("error", "bad_json", False)
    assert len(error["message"]) < 300
    assert await client.so_far() == await other.so_far() == []


@pytest.mark.parametrize("start", ['{"type": "publish", "channel": "cars", "message": ', '{"type": "hello", "x": '])
async def test_what_is_nested_too_deeply_is_refused(serve, start):
    """How deeply JSON can be read at all depends on the Python, and on the size of its stack."""
    site = await serve()
    client, other = await site.join("ann", "cars"), await site.join("bob", "cars")
    error = await client.ask(start + "[" * 100_000 + "]" * 100_000 + "}")
    assert error["type"] == "error"
    assert error["code"] in ("bad_json", "bad_field")
    assert await client.so_far() == await other.so_far() == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "shout"}, "unknown_type"),
        ({"type": ""}, "unknown_type"),
        ({"type": "message"}, "unknown_type"),
        ({"type": "Publish", "channel": "cars", "message": 1}, "unknown_type"),
        ({"type": 1}, "bad_field"),
        ({"type": None}, "bad_field"),
        ({"type": ["publish"]}, "bad_field"),
        ({"kind": "publish"}, "bad_field"),
    ],
    ids=str,
)
async def test_a_type_that_is_not_there_is_told_with_those_that_are(serve, frame, code):
    client = await (await serve()).join()
    error = await client.ask(frame | {"id": 3})
    assert (error["code"], error["id"]) == (code, 3)
    assert error["message"].startswith('"type" is ')


async def test_unknown_fields_are_ignored(serve):
    client = await (await serve()).join(None, "cars")
    frame = {"type": "publish", "channel": "cars", "message": 1, "qos": 2, "from": {"user": "eve"}, "time": 0}
    message = await client.ask(frame)
    assert (message["message"], message["from"]["user"], set(message)) == (
        1,
        None,
        {"type", "channel", "message", "from", "time"},
    )


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "a\x00b", "a\nb", "\x7f", "\x85", "\x9f"])
@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "publish", "whisper", "typing", "presence"])
async def test_no_channel_has_such_a_name(serve, kind, name):
    client = await (await serve()).join("ann")
    error = await client.ask({"type": kind, "id": 1, **FRAMES[kind], "channel": name})
    assert (error["code"], error["id"], "channel" in error) == ("bad_channel", 1, False)


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, " ", ".", "a/b", "\u2028", "😀", "{}", "*"])
async def test_a_channel_may_have_such_a_name(serve, name):
    client = await (await serve()).join()
    assert (await client.ask({"type": "subscribe", "channel": name}))["channel"] == name


async def test_a_hello_with_thousands_of_channels_gets_as_many_as_fit_and_one_error(serve):
    site = await serve()
    client = await site.dial()
    await client.send({"type": "hello", "version": 1, "channels": dict.fromkeys(map(str, range(10_000)))})
    kinds = [(await client.receive())["type"] for _ in range(101)]
    assert kinds == ["welcome", *["subscribed"] * 100]
    error = await client.receive()
    assert error["code"] == "too_many"
    assert "9900 of hello" in error["message"]
    assert await client.so_far() == []
    assert len(site.manager.channels) == 100


async def test_thousands_of_subscriptions_leave_nothing_behind(serve):
    site = await serve(Named(rules("*"), max_channels=10))
    client = await site.join("ann")
    for i in range(3000):
        await client.send({"type": "subscribe", "channel": f"c{i}"})
        await client.send({"type": "typing", "channel": f"c{i}"})
        await client.send({"type": "unsubscribe", "channel": f"c{i - 5}"})
        if i % 100 == 99:  # so that no turn of the loop takes long
            await client.so_far()
    listener = site.manager.listener
    assert len(site.manager.channels) <= 10
    assert listener._told == set()
    await client.ws.close()


# -- arbitrary JSON

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
fields = st.sampled_from(
    ["id", "channel", "message", "to", "exclude", "version", "channels", "method", "params", "token"]
)
plausible = st.one_of(
    st.sampled_from(["cars", "boats", "ann", "self", 1, {}, ["ann"], ["bob"]]),
    json_values,
)
near_frames = st.builds(
    lambda kind, more: {"type": kind, **more},
    st.sampled_from([*FRAMES, "nothing"]),
    st.dictionaries(fields, plausible, max_size=5),
)
near_misses = st.builds(
    lambda kind, more: {"type": kind, **FRAMES[kind], **more},
    st.sampled_from(sorted(FRAMES)),
    st.dictionaries(fields, plausible, max_size=2),
)


async def test_arbitrary_json_is_answered_and_harms_nobody(serve):
    site = await serve(Named(rules("cars", {"pattern": "boats", "subscribe": "user"})))
    other = await site.join("bob", "cars")
    client = await site.join("ann", "cars")
    batches = []

    @settings(max_examples=150, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(near_frames | near_misses | json_values, min_size=1, max_size=8))
    def draw(batch):
        batches.append(batch)

    draw()
    for batch in batches:
        for frame in batch:
            await client.send(json.dumps(frame))
        answers = await client.so_far()
        for answer in answers:
            assert answer["type"] in ANSWERS, (batch, answer)
            if answer["type"] == "error":
                assert answer["code"] in CODES
                assert isinstance(answer["message"], str)
                assert set(answer) <= {"type", "id", "code", "message", "channel", "retry"}
        errors = sum(not isinstance(frame, dict) or ("type" not in frame and frame != {}) for frame in batch)
        assert sum(answer["type"] == "error" for answer in answers) >= errors
        if "cars" not in {
            channel for ws in site.manager.connections.values() for channel in ws.channels if ws.user == "ann"
        }:
            await client.ask({"type": "subscribe", "channel": "cars"})
    for frame in await other.so_far():
        assert frame["type"] in {"message", "whisper", "typing"}
    assert site.manager.connection_count == 2
