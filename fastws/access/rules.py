"""``[[channels]]``: rules that say who may subscribe, publish and whisper. What no rule covers is not there."""

import re
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, get_args

import msgspec
from msgspec import Meta

from ..errors import ConfigurationError
from ..logs import History, Keep, Latest
from ..v1.decisions import Refused

__all__ = ["Action", "Answer", "ChannelRule", "Explanation", "Rules", "Visitor"]

Action: TypeAlias = Literal["subscribe", "publish", "whisper"]
Joiners: TypeAlias = Literal["nobody", "anyone", "user", "token", "hook"]
Speakers: TypeAlias = Literal["nobody", "anyone", "user", "member", "token", "hook"]

KEPT = 4096  # channels whose rule is remembered
MINE = "{user}"


class ChannelRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of ``[[channels]]``. All is denied that a rule does not allow."""

    pattern: Annotated[str, Meta(min_length=1, max_length=255)]
    """A glob: ``*``, ``?``, ``[abc]``, ``[!abc]``; case matters. ``{user}`` is the connection's own user."""
    subscribe: Joiners = "nobody"
    """nobody, anyone, user (with a name), token (its claim lists the channel), or hook (the backend says so)."""
    publish: Speakers = "nobody"
    """The same, or member: whoever is subscribed."""
    whisper: Speakers = "nobody"
    """To members by name; the same as publish."""
    presence: bool = False
    """Whether members get lists of who is there, joins and leaves."""
    max_subscribers: Annotated[int, Meta(ge=1)] | None = None
    """Connections that the channel takes; None: any number."""
    history: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Messages that the channel keeps, for members who come back; None: none."""
    latest: bool = False
    """Whether the channel keeps the latest message of each key, and whoever joins gets them all."""
    ttl: Annotated[float, Meta(ge=1, le=31_536_000)] | None = None
    """Seconds for which they are kept after the last one; None: 300 of a history, 3,600 of latest messages."""
    overflow: Literal["close", "drop_oldest", "drop_newest"] | None = None
    """Not for single channels yet: a value is refused at start."""


class Visitor(NamedTuple):
    """Whom a rule decides on: a user (None: without a name), what the token says, and whether it is in the channel."""

    user: Any
    claims: Mapping[str, Any] | None = None
    is_member: bool = False


class Answer(NamedTuple):
    """One action, whether it is allowed, and why (not)."""

    action: str
    allowed: bool
    reason: str


class Explanation(NamedTuple):
    """What `Rules.explain` found; its ``str()`` is for people."""

    channel: str
    user: Any
    pattern: str | None
    """Of the rule that decides; None where there is none."""
    answers: tuple[Answer, ...]
    others: tuple[str, ...]
    """Patterns that match as well, and are less literal."""

    def __str__(self) -> str:
        who = "a visitor without a user" if self.user is None else f"user {self.user}"
        if self.pattern is None:
            return f"{self.channel} for {who}: no [[channels]] has a pattern that matches, so there is no such channel"
        lines = [f'{self.channel} for {who}: [[channels]] pattern = "{self.pattern}" decides']
        lines += [f"  {action:10} {'yes' if is_so else 'no':4} {reason}" for action, is_so, reason in self.answers]
        if self.others:
            lines.append(f"  less literal, and not asked: {', '.join(self.others)}")
        return "\n".join(lines)


class Rules:
    """All rules of a server. Raises ConfigurationError for those that cannot work, or cannot be told apart.

    The most literal pattern that matches decides alone, as if the others were not there; ``{user}`` matches as ``*``
    for this, so that a channel of ann's never falls to a wider rule for bob. ``channels_claim`` and ``publish_claim``
    name the claims of a token that list channels, as globs.
    """

    def __init__(
        self, rules: Iterable[ChannelRule], *, channels_claim: str = "channels", publish_claim: str = "publish"
    ) -> None:
        self._claims = {"subscribe": channels_claim, "publish": publish_claim, "whisper": publish_claim}
        patterns = sorted((Pattern(rule) for rule in rules), key=lambda pattern: pattern.rank)
        for i, pattern in enumerate(patterns):
            for other in patterns[i + 1 :]:
                if pattern.rank == other.rank and overlap(pattern.tokens, other.tokens):
                    raise ConfigurationError(
                        f"[[channels]] patterns {other.text!r} and {pattern.text!r} are equally literal and match the "
                        "same channels: make one of them more literal, or leave it out"
                    )
        self._patterns = patterns
        self._find: Callable[[str], Pattern | None] = lru_cache(KEPT)(self._most_literal)

    def __len__(self) -> int:
        return len(self._patterns)

    def find(self, channel: str) -> ChannelRule | None:
        """Returns the rule that covers a channel, or None."""
        pattern = self._find(channel)
        return None if pattern is None else pattern.rule

    def keep(self, channel: str) -> Keep | None:
        """Returns what the channel's rule says that it keeps."""
        pattern = self._find(channel)
        return None if pattern is None else pattern.keep

    @property
    def keep_anything(self) -> bool:
        """Whether any channel keeps what was sent."""
        return any(pattern.keep is not None for pattern in self._patterns)

    def check(self, action: Action, channel: str, visitor: Visitor) -> ChannelRule:
        """Returns the channel's rule if that allows an action, or leaves it to the backend; raises Refused."""
        pattern = self._find(channel)
        if pattern is None:
            raise Refused("unknown_channel", "there is no such channel")
        code, reason = self._verdict(pattern, action, channel, visitor)
        if code:
            raise Refused(code, reason)
        return pattern.rule

    def is_listed(self, action: Action, channel: str, claims: Mapping[str, Any] | None) -> bool:
        """Returns whether a token's claims list a channel for an action."""
        globs = (claims or {}).get(self._claims[action])
        globs = [globs] if isinstance(globs, str) else globs
        return isinstance(globs, list | tuple) and any(isinstance(g, str) and fnmatchcase(channel, g) for g in globs)

    def as_claims(self, allow: Mapping[str, Any]) -> dict[str, Any]:
        """Returns globs by action, as a token says them."""
        return {self._claims[action]: list(allow[action]) for action in ("subscribe", "publish") if action in allow}

    def check_backend(self, asks: Callable[[str], bool] | None) -> None:
        """Raises ConfigurationError where a rule leaves to the backend what that is not asked."""
        for pattern in self._patterns:
            for action in get_args(Action):
                event = "subscribe" if action == "subscribe" else "publish"
                if getattr(pattern.rule, action) == "hook" and (asks is None or not asks(event)):
                    raise ConfigurationError(
                        f'[[channels]] {pattern.text!r}: {action} = "hook" needs [hooks] with "{event}" in ask'
                    )

    def explain(self, user: Any, channel: str, claims: Mapping[str, Any] | None = None) -> Explanation:
        """Returns who may what in a channel, by which rule and why; as one that is subscribed, if that is allowed."""
        matching = [pattern for pattern in self._patterns if pattern.covers(channel)]
        if not matching:
            return Explanation(channel, user, None, (), ())
        pattern, *others = matching
        answers: list[Answer] = []
        for action in get_args(Action):
            is_member = bool(answers) and answers[0].allowed
            code, reason = self._verdict(pattern, action, channel, Visitor(user, claims, is_member))
            value = getattr(pattern.rule, action)
            answers.append(Answer(action, not code, f'{action} = "{value}": {reason or self._because(value, action)}'))
        presence = "presence = true" if pattern.rule.presence else "presence = false"
        answers.append(Answer("presence", pattern.rule.presence and answers[0].allowed, presence))
        return Explanation(channel, user, pattern.text, tuple(answers), tuple(other.text for other in others))

    def _because(self, value: str, action: Action) -> str:
        return {
            "anyone": "everybody may",
            "user": "this is a user",
            "member": "members may",
            "token": f'the claim "{self._claims[action]}" lists the channel',
            "hook": "the backend is asked",
        }[value]

    def _most_literal(self, channel: str) -> "Pattern | None":
        return next((pattern for pattern in self._patterns if pattern.covers(channel)), None)

    def _verdict(self, pattern: "Pattern", action: Action, channel: str, visitor: Visitor) -> tuple[str, str]:
        """An error's code and message; two empty ones where the action is allowed, or left to the backend."""
        value = getattr(pattern.rule, action)
        if pattern.is_mine and value != "nobody":
            if visitor.user is None:
                return "unauthenticated", "this channel is for one user: say who you are"
            if not pattern.is_of(channel, visitor.user):
                return "forbidden", "this channel is another user's"
        if value == "nobody":
            return "forbidden", f"nobody may {action} here"
        if value in ("user", "token") and visitor.user is None:
            return "unauthenticated", "this needs a user"
        if value == "member" and not visitor.is_member:
            return "not_a_member", "this needs a subscription to the channel"
        if value == "token" and not self.is_listed(action, channel, visitor.claims):
            return "forbidden", f'the claim "{self._claims[action]}" of the token does not list this channel'
        return "", ""


# -- patterns


class Pattern:
    """A rule's pattern, compiled."""

    def __init__(self, rule: ChannelRule) -> None:
        self.rule = rule
        self.text = rule.pattern
        self.is_mine = MINE in self.text
        self.keep = keep_of(rule)
        if rule.overflow is not None:
            raise ConfigurationError(
                f"[[channels]] {self.text!r}: overflow = {rule.overflow!r} cannot be set for a channel yet, "
                "set it for the whole server (overflow at the top of the file)"
            )
        if re.search(r"\{[^}]*\}", self.text.replace(MINE, "")):
            raise ConfigurationError(f"[[channels]] {self.text!r}: the only name in braces is {MINE}")
        self.covers = re.compile(translate(self.text.replace(MINE, "*"))).match
        self.tokens = tokens(self.text)
        kinds = [token if isinstance(token, str) else "one" for token in self.tokens]
        # The most literal first: by its characters, then by what stands for one character, then by its {user}s.
        self.rank = (
            -sum(isinstance(token, frozenset) and len(token) == 1 for token in self.tokens),
            -kinds.count("one"),
            -self.text.count(MINE),
            kinds.count("*"),
        )

    def is_of(self, channel: str, user: Any) -> bool:
        """Returns whether a channel that this covers is a user's own."""
        return _of_user(self.text, str(user))(channel) is not None


@lru_cache(KEPT)
def _of_user(pattern: str, user: str) -> Callable[[str], Any]:
    return re.compile(translate(pattern.replace(MINE, "".join(f"[{c}]" if c in "*?[" else c for c in user)))).match


def keep_of(rule: ChannelRule) -> Keep | None:
    """Returns what a rule says that its channels keep; raises ConfigurationError where it contradicts itself."""
    ttl: dict[str, Any] = {} if rule.ttl is None else {"ttl": rule.ttl}
    if rule.history is not None and rule.latest:
        raise ConfigurationError(f"[[channels]] {rule.pattern!r}: history and latest exclude each other: choose one")
    if rule.history is not None:
        return History(rule.history, **ttl)
    if rule.latest:
        return Latest(**ttl)
    if ttl:
        raise ConfigurationError(f"[[channels]] {rule.pattern!r}: ttl needs history or latest, which are not there")
    return None


# What stands for characters: those of a set; all but those of a set; or any number of any, "*".
Token: TypeAlias = "frozenset[str] | Excluded | str"


class Excluded(NamedTuple):
    """Any one character but these."""

    characters: frozenset[str]


SET = re.compile(r"\[(!?)(\][^\]]*|[^\]]+)\]|\{user\}|(.)", re.DOTALL)


def tokens(pattern: str) -> list[Token]:
    """What a glob is made of; a range in a set counts as any character, which is enough to be careful."""
    found: list[Token] = []
    for match in SET.finditer(pattern):
        characters = match[2]
        if characters:
            is_range = "-" in characters[1:-1]
            members = frozenset(characters)
            found.append(Excluded(frozenset()) if is_range else Excluded(members) if match[1] else members)
        elif match[0] == MINE or match[0] == "*":
            if not (found and found[-1] == "*"):
                found.append("*")
        else:
            found.append(Excluded(frozenset()) if match[0] == "?" else frozenset(match[0]))
    return found


def overlap(one: list[Token], other: list[Token]) -> bool:
    """Returns whether some name matches both."""
    reached = {(0, 0)}
    waiting = [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(one) and j == len(other):
            return True
        steps = []
        if i < len(one) and one[i] == "*":
            steps += [(i + 1, j)] + [(i, j + 1)] * (j < len(other))
        if j < len(other) and other[j] == "*":
            steps += [(i, j + 1)] + [(i + 1, j)] * (i < len(one))
        if i < len(one) and j < len(other) and meet(one[i], other[j]):
            steps.append((i + 1, j + 1))
        for step in steps:
            if step not in reached:
                reached.add(step)
                waiting.append(step)
    return False


def meet(one: Token, other: Token) -> bool:
    """Returns whether one character fits both."""
    if isinstance(one, str) or isinstance(other, str):
        return False  # stars were dealt with
    if isinstance(one, Excluded):
        return isinstance(other, Excluded) or bool(other - one.characters)
    if isinstance(other, Excluded):
        return bool(one - other.characters)
    return bool(one & other)
