"""Signatures, held against the library of those who defined them."""

import time

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from fastws.hooks.signing import key_of, signed, verify

from .conftest import SECRET, Somebody

BODY = b'{"event": "connect"}'


def test_a_signature_is_what_standard_webhooks_expects():
    fields = signed(key_of(SECRET), "msg_1", int(time.time()), BODY)
    assert Webhook(SECRET).verify(BODY, fields) == {"event": "connect"}
    assert verify(SECRET, fields, BODY)


def test_and_theirs_is_what_we_expect():
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, BODY.decode())
    fields = {"webhook-id": "msg_1", "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert verify(SECRET, fields, BODY)
    assert verify(SECRET, {**fields, "webhook-signature": f"v1,old v2,x {signature}"}, BODY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("webhook-id", "msg_2"),
        ("webhook-id", ""),
        ("webhook-timestamp", "0"),
        ("webhook-timestamp", "soon"),
        ("webhook-timestamp", "\u0661"),
        ("webhook-timestamp", "9" * 5000),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,\u00e4"),
    ],
)
def test_any_other_is_not(field, value):
    fields = signed(key_of(SECRET), "msg_1", int(time.time()), BODY)
    assert not verify(SECRET, {**fields, field: value}, BODY)
    assert not verify(SECRET, {name: text for name, text in fields.items() if name != field}, BODY)
    assert not verify(SECRET, fields, BODY + b" ")


def test_a_signature_holds_for_five_minutes():
    fields = signed(key_of(SECRET), "msg_1", 1_000_000, BODY)
    assert verify(SECRET, fields, BODY, now=1_000_300)
    assert not verify(SECRET, fields, BODY, now=1_000_301)
    assert not verify(SECRET, fields, BODY, now=999_699)


async def test_every_post_is_signed(backend, hooks):
    sender = hooks(secret=SECRET, tell=("online",))
    await sender.call(Somebody(), "x", None)
    sender.tell({"type": "online", "user": "ann"})
    ask = backend.posts[0]
    told = await backend.until(lambda: next((post for post in backend.posts if "events" in post.json), None))
    for post in (ask, told):
        Webhook(SECRET).verify(post.body, post.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(post.body + b" ", post.headers)
    assert ask.headers["webhook-id"] != told.headers["webhook-id"]
