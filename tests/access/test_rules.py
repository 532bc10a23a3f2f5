"""[[channels]]: who may what, and which rule decides."""

import random
from fnmatch import fnmatchcase
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastws import ConfigurationError, History, Latest
from fastws.access.rules import ChannelRule, Rules, Visitor, overlap, tokens
from fastws.v1.decisions import Refused

NOBODY, ANN = Visitor(None), Visitor("ann")
MEMBER, ANN_IN = Visitor(None, None, True), Visitor("ann", None, True)


def rules(*of, **claims):
    return Rules([ChannelRule(**rule) for rule in of], **claims)


def code(found, action, channel, visitor):
    """An error's code; "" where it is allowed."""
    try:
        found.check(action, channel, visitor)
    except Refused as refused:
        return refused.code if refused.message else "no message"
    return ""


# -- values


@pytest.mark.parametrize("action", ["subscribe", "publish", "whisper"])
@pytest.mark.parametrize(
    ("value", "nobody", "ann", "member"),
    [
        ("nobody", "forbidden", "forbidden", "forbidden"),
        ("anyone", "", "", ""),
        ("user", "unauthenticated", "", "unauthenticated"),
        ("token", "unauthenticated", "forbidden", "unauthenticated"),
        ("hook", "", "", ""),
        ("member", "not_a_member", "not_a_member", ""),
    ],
)
def test_every_value_of_every_action(action, value, nobody, ann, member):
    if (action, value) == ("subscribe", "member"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"pattern": "cars", action: value}, ChannelRule)
        return
    found = rules(msgspec.to_builtins(msgspec.convert({"pattern": "cars", action: value}, ChannelRule)))
    assert [code(found, action, "cars", who) for who in (NOBODY, ANN, MEMBER)] == [nobody, ann, member]


def test_a_rule_allows_nothing_that_it_does_not_say():
    found = rules({"pattern": "cars"})
    assert {code(found, action, "cars", ANN_IN) for action in ("subscribe", "publish", "whisper")} == {"forbidden"}


def test_without_a_rule_there_is_no_channel():
    for found in (rules(), rules({"pattern": "cars", "subscribe": "anyone"})):
        assert code(found, "subscribe", "boats", ANN) == "unknown_channel"
        assert found.find("boats") is None


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"pattern": ""},
        {"pattern": "x" * 256},
        {"pattern": "cars", "subscribe": "members"},
        {"pattern": "cars", "subscribe": True},
        {"pattern": "cars", "max_subscribers": 0},
        {"pattern": "cars", "presence": "yes"},
        {"pattern": "cars", "publsh": "anyone"},
        {"pattern": "cars", "overflow": "perhaps"},
    ],
    ids=str,
)
def test_a_rule_that_is_misspelt_is_refused(bad):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(bad, ChannelRule)


def test_overflow_cannot_be_set_for_a_channel():
    with pytest.raises(ConfigurationError, match="overflow = 'drop_oldest' cannot be set for a channel"):
        rules({"pattern": "cars", "overflow": "drop_oldest"})


# -- tokens


def test_a_tokens_claims_list_channels_as_globs():
    found = rules({"pattern": "*", "subscribe": "token", "publish": "token", "whisper": "token"})
    who = Visitor("ann", {"channels": ["room.*", "cars"], "publish": "room.1"})
    assert [code(found, "subscribe", name, who) for name in ("room.1", "cars", "Cars")] == ["", "", "forbidden"]
    assert [code(found, "publish", name, who) for name in ("room.1", "room.2", "cars")] == [
        "",
        "forbidden",
        "forbidden",
    ]
    assert code(found, "whisper", "room.1", who) == ""


@pytest.mark.parametrize("claim", [None, 1, {}, [], [None], [["*"]], {"*": 1}, True])
def test_a_claim_that_is_no_list_of_globs_lists_nothing(claim):
    found = rules({"pattern": "*", "subscribe": "token"})
    assert code(found, "subscribe", "cars", Visitor("ann", {"channels": claim})) == "forbidden"
    assert code(found, "subscribe", "cars", Visitor("ann", {})) == "forbidden"


def test_claims_have_the_names_that_they_are_given():
    found = rules({"pattern": "*", "subscribe": "token", "publish": "token"}, channels_claim="c", publish_claim="p")
    who = Visitor("ann", {"c": ["a"], "p": ["b"], "channels": ["*"], "publish": ["*"]})
    assert [code(found, "subscribe", name, who) for name in "ab"] == ["", "forbidden"]
    assert [code(found, "publish", name, who) for name in "ab"] == ["forbidden", ""]
    assert found.as_claims({"subscribe": ["x"], "publish": ("y",)}) == {"c": ["x"], "p": ["y"]}
    assert found.as_claims({}) == {}


# -- which rule


def test_the_most_literal_pattern_decides_alone():
    patterns = ["*", "room.*", "room.1*", "room.1?", "room.[23]1", "room.11", "user.*", "user.{user}"]
    shuffled = [{"pattern": pattern, "subscribe": "anyone"} for pattern in patterns]
    random.Random(1).shuffle(shuffled)
    found = rules(*shuffled)
    for channel, pattern in {
        "x": "*",
        "room.": "room.*",
        "room.2": "room.*",
        "room.1": "room.1*",
        "room.123": "room.1*",
        "room.12": "room.1?",
        "room.21": "room.[23]1",
        "room.11": "room.11",
        "user.ann": "user.{user}",
        "Room.1": "*",
    }.items():
        assert found.find(channel).pattern == pattern, channel


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "a"), ("*", "*"), ("a.*", "*.b"), ("a?", "?b"), ("[ab]", "?"), ("*a", "a*"), ("u.{user}", "u.{user}")],
)
def test_patterns_that_cannot_be_told_apart_are_refused(one, other):
    with pytest.raises(ConfigurationError, match="equally literal and match the same channels"):
        rules({"pattern": one}, {"pattern": other})


@pytest.mark.parametrize(
    ("one", "other"),
    [("a", "b"), ("a.*", "b.*"), ("*.a", "*.b"), ("a?", "b?"), ("[ab]", "[cd]"), ("[!a]", "a"), ("a.*", "a.b*")],
)
def test_patterns_that_can_be_told_apart_are_not(one, other):
    assert len(rules({"pattern": one}, {"pattern": other})) == 2


globs = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), max_size=5).map("".join)
NAMES = ["".join(name) for size in range(6) for name in product("abc", repeat=size)]


@given(globs, globs)
def test_what_overlaps_is_what_a_name_shows(one, other):
    shown = any(fnmatchcase(name, one) and fnmatchcase(name, other) for name in NAMES)
    said = overlap(tokens(one), tokens(other))
    assert said or not shown
    if len(tokens(one)) + len(tokens(other)) <= 5:  # then a name that both match is among those tried
        assert said == shown


@given(st.text(st.sampled_from("ab[]!-*?{}."), min_size=1, max_size=8), st.text(st.sampled_from("ab.[]"), max_size=5))
def test_a_pattern_covers_what_fnmatch_says(pattern, name):
    if "{" in pattern and "}" in pattern:
        return
    assert (rules({"pattern": pattern}).find(name) is not None) == fnmatchcase(name, pattern)


@pytest.mark.parametrize("pattern", ["{channel}", "a.{}", "{user}.{name}", "{User}"])
def test_the_only_name_in_braces_is_user(pattern):
    with pytest.raises(ConfigurationError, match="the only name in braces is"):
        rules({"pattern": pattern})


# -- {user}


def test_user_stands_for_the_connections_own():
    found = rules(
        {"pattern": "user.{user}", "subscribe": "user", "publish": "anyone"},
        {"pattern": "*", "subscribe": "anyone", "publish": "anyone"},
    )
    assert code(found, "subscribe", "user.ann", ANN) == ""
    assert code(found, "subscribe", "user.ann", Visitor("bob")) == "forbidden"
    assert code(found, "subscribe", "user.ann", NOBODY) == "unauthenticated"
    assert code(found, "publish", "user.ann", Visitor("bob")) == "forbidden"
    assert code(found, "subscribe", "user.7", Visitor(7)) == ""
    assert code(found, "subscribe", "other", NOBODY) == ""


@pytest.mark.parametrize("name", ["*", "?", "[a-z]", "a*", "{user}", ".*", "\\", "a.b", "", "é"])
def test_no_user_is_a_pattern(name):
    found = rules({"pattern": "user.{user}", "subscribe": "user"}, {"pattern": "{user}-*", "subscribe": "user"})
    assert code(found, "subscribe", f"user.{name}", Visitor(name)) == ""
    assert code(found, "subscribe", f"{name}-x", Visitor(name)) == ""
    assert code(found, "subscribe", "user.ann", Visitor(name)) == "forbidden"


def test_where_user_stands_twice_both_are_the_same():
    found = rules({"pattern": "{user}:{user}", "subscribe": "user"})
    assert code(found, "subscribe", "ann:ann", ANN) == ""
    assert code(found, "subscribe", "ann:bob", ANN) == "forbidden"


# -- explained


def test_explain_says_who_may_what_by_which_rule_and_why():
    found = rules(
        {"pattern": "room.*", "subscribe": "user", "publish": "member", "presence": True},
        {"pattern": "*", "subscribe": "anyone"},
    )
    explained = found.explain("ann", "room.1")
    assert (explained.pattern, explained.others) == ("room.*", ("*",))
    assert [(answer.action, answer.allowed) for answer in explained.answers] == [
        ("subscribe", True),
        ("publish", True),
        ("whisper", False),
        ("presence", True),
    ]
    text = str(explained)
    assert text.startswith('room.1 for user ann: [[channels]] pattern = "room.*" decides\n')
    assert 'subscribe  yes  subscribe = "user": this is a user' in text
    assert 'whisper = "nobody": nobody may whisper here' in text
    assert "less literal, and not asked: *" in text
    nobody = found.explain(None, "room.1")
    assert [answer.allowed for answer in nobody.answers] == [False, False, False, False]
    assert "no [[channels]] has a pattern that matches" in str(rules().explain("ann", "x"))


def test_explain_agrees_with_what_is_decided():
    values = ["nobody", "anyone", "user", "member", "token", "hook"]
    for subscribe, publish in product([v for v in values if v != "member"], values):
        found = rules({"pattern": "*", "subscribe": subscribe, "publish": publish, "whisper": publish})
        for user, claims in product([None, "ann"], [None, {"channels": ["c"], "publish": ["c"]}]):
            explained = {answer.action: answer for answer in found.explain(user, "c", claims).answers}
            member = explained["subscribe"].allowed
            for action in ("subscribe", "publish", "whisper"):
                is_in = member if action != "subscribe" else False
                allowed = code(found, action, "c", Visitor(user, claims, is_in)) == ""
                assert explained[action].allowed == allowed
                assert explained[action].reason


def test_what_is_remembered_is_bounded():
    found = rules({"pattern": "*", "subscribe": "anyone"})
    for i in range(10_000):
        found.find(str(i))
    assert found._find.cache_info().currsize == 4096


# -- what channels keep


def test_a_rule_says_what_its_channels_keep():
    rules = Rules(
        [
            ChannelRule(pattern="room.*", history=10),
            ChannelRule(pattern="old.*", history=5, ttl=60),
            ChannelRule(pattern="price.*", latest=True),
            ChannelRule(pattern="price.{user}", latest=True, ttl=60),
            ChannelRule(pattern="plain"),
        ]
    )
    assert rules.keep("room.1") == History(10)
    assert rules.keep("old.1") == History(5, ttl=60)
    assert rules.keep("price.x") in (Latest(), Latest(ttl=60))
    assert rules.keep("plain") is None
    assert rules.keep("nowhere") is None
    assert rules.keep_anything
    assert not Rules([ChannelRule(pattern="plain")]).keep_anything


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"history": 5, "latest": True}, "history and latest exclude each other"),
        ({"ttl": 5}, "ttl needs history or latest"),
    ],
)
def test_what_contradicts_itself_is_refused(rule, says):
    with pytest.raises(ConfigurationError, match=says):
        Rules([ChannelRule(pattern="room.*", **rule)])
