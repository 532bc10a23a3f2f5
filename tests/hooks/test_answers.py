"""Whatever is answered that is not a whole yes: nobody is let in."""

import json
import logging

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastws import Reject
from fastws.hooks.asking import Denied, judge
from fastws.hooks.posting import Unanswered
from fastws.hooks.shapes import ConnectAnswer

from ..lib.support import records_naming
from .conftest import ask, refused, reply, request_of

MIB = 1 << 20
WRONG = {
    "user": [5, "", "x" * 256, ["ann"], {}, True],
    "channels": ["cars", [5], [""], ["x" * 256], ["\u00e4" * 200], ["a\nb"], {}, None],
    "expires": ["soon", True, [1]],
    "renew": [1, "true", None],
    "allow": [["*"], "*", {"subscribe": "*"}, {"publish": [1]}, {"read": ["*"]}, []],
    "usr": ["ann"],
    "ok": [True],
}

WRONG_LATER = [
    ("subscribe", {"presence": "yes"}),
    ("subscribe", {"presence": None}),
    ("subscribe", {"to": ["ann"]}),
    ("publish", {"to": "ann"}),
    ("publish", {"to": [1]}),
    ("publish", {"drop": 1}),
    ("publish", {"result": 1}),
    ("call", {"message": 1}),
    *[
        (event, {"close": close})
        for event in ("subscribe", "publish", "call")
        for close in (
            4000,
            {},
            {"code": 1000},
            {"code": "4000"},
            {"code": 5000},
            {"code": 4000, "reason": "\u20ac" * 42},
        )
    ],
]

GARBAGE = {
    "500": (reply(500, {"user": "ann"}), "status 500"),
    "503": (reply(503), "status 503"),
    "a redirect": (reply(302, headers="Location: /elsewhere\r\n"), "status 302"),
    "a permanent redirect": (reply(308, headers="Location: http://127.0.0.1:1/\r\n"), "status 308"),
    "another 2xx": (reply(201, {"user": "ann"}), "status 201"),
    "nothing": (reply(body=b""), "not JSON"),
    "HTML": (reply(body=b"<b>Fatal error</b>: Uncaught Error"), "not JSON"),
    "JSON and more": (reply(body=b"{} <b>Warning</b>"), "not JSON"),
    "a string": (reply(body=b'"yes"'), "wrong form"),
    "true": (reply(body=b"true"), "wrong form"),
    "null": (reply(body=b"null"), "wrong form"),
    "a list": (reply(body=b'["ann"]'), "wrong form"),
    "deep": (reply(body=b"[" * 10_000), "not JSON"),
    "no UTF-8": (reply(body=b'{"user": "\xff"}'), "not JSON"),
    "packed": (reply(body=b"\x1f\x8b" + bytes(20), headers="Content-Encoding: gzip\r\n"), "not JSON"),
    "1 MiB and a byte": (reply(body=b'{"user": "ann"}' + b" " * (MIB - 14)), "larger than 1 MiB"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n\r\n", "no whole answer"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", "no whole answer"),
    "half a body": (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"user": "ann"}', "no whole answer"),
    "half a chunk": (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"user"', "no whole answer"),
    "no answer": (None, "no whole answer"),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
async def test_a_connect_of_the_wrong_form_lets_nobody_in(backend, hooks, key, value):
    backend.says(reply(200, {"user": "ann", key: value}))
    await refused(hooks())


@pytest.mark.parametrize(("event", "answer"), WRONG_LATER)
async def test_any_other_answer_of_the_wrong_form_is_none(backend, hooks, event, answer):
    backend.says(reply(200, answer))
    await refused(hooks(), event)


@pytest.mark.parametrize("event", ["connect", "publish"])
@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_lets_nobody_in_and_is_one_line_in_the_log(backend, hooks, caplog, event, what):
    answer, reason = GARBAGE[what]

    async def once(post):
        if answer is None or not what.startswith("half"):
            return answer
        next(iter(backend._writers)).write(answer)
        return None

    backend.answer = once
    asking = hooks()
    await refused(asking, event)
    (record,) = records_naming(caplog, "got no answer")
    assert reason in record.getMessage()
    assert (record.event, record.result, record.milliseconds > 0) == (event, "error", True)
    assert len(backend.posts) == 1  # asked once, and nowhere else
    assert asking.figures.requests == {(event, "error"): 1}


async def test_a_whole_mebibyte_is_read(backend, hooks):
    backend.says(reply(body=b'{"user": "ann"}' + b" " * (MIB - 15)))
    assert (await ask(hooks(), "connect")).user == "ann"


async def test_an_endless_answer_is_not_read_to_its_end(backend, hooks):
    sent = 0

    async def endless(post):
        nonlocal sent
        writer = next(iter(backend._writers))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            writer.write(b" " * MIB)
            await writer.drain()
            sent += MIB

    backend.answer = endless
    await refused(hooks())
    assert sent < 100 * MIB


async def test_neither_secret_nor_cookie_is_in_the_log(backend, hooks, caplog):
    caplog.set_level(logging.DEBUG)
    asking = hooks(secret="whsec_" + "c2VjcmV0" * 5, timeout=0.05)
    request = request_of("/ws?token=topsecret", Cookie="session=topsecret", Authorization="Bearer topsecret")
    for what in GARBAGE.values():
        backend.says(what[0])
        with pytest.raises(Reject):
            await asking.connect(request)
    assert records_naming(caplog, "got no answer")
    for hidden in ("topsecret", "c2VjcmV0", "secretsecret"):
        assert not records_naming(caplog, hidden)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)

ANSWERS = st.dictionaries(
    st.sampled_from(["user", "data", "channels", "welcome", "expires", "renew", "allow", "message", "to", "close"]),
    JSON,
)


def may_be_let_in(answer):
    """The specification of connect's answer, written down once more."""
    known = {"user", "data", "channels", "welcome", "expires", "renew", "allow"}
    allow = answer.get("allow") or {}
    return (
        set(answer) <= known
        and (answer.get("user") is None or (isinstance(answer["user"], str) and 1 <= len(answer["user"]) <= 255))
        and isinstance(answer.get("channels", []), list)
        and all(isinstance(name, str) and 1 <= len(name.encode()) <= 255 for name in answer.get("channels", []))
        and (answer.get("expires") is None or type(answer["expires"]) in (int, float))
        and type(answer.get("renew", False)) is bool
        and (answer.get("allow") is None or isinstance(answer["allow"], dict))
        and set(allow) <= {"subscribe", "publish"}
        and all(isinstance(globs, list) and all(isinstance(glob, str) for glob in globs) for globs in allow.values())
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(200, b'{"user": "ann", "expires": 1e400}')
@example(200, b'{"user": "ann"}\0')
@example(200, b"{}")
@given(
    st.sampled_from([200, 200, 200, 204, 201, 206, 301, 304, 400, 404, 500, 599]),
    st.binary(max_size=40) | (ANSWERS | JSON).map(lambda value: json.dumps(value).encode()),
)
def test_whatever_is_answered_nobody_is_let_in_but_by_a_whole_yes(status, body):
    try:
        said = judge(status, body, ConnectAnswer)
    except (Denied, Unanswered):
        return
    assert status in (200, 204)
    if status == 200 and body != b"[]":
        answer = orjson.loads(body)
        assert may_be_let_in(answer)
        assert said.user == answer.get("user")
