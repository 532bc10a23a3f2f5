"""What a backend may answer. A key that is not here, or has another type, makes an answer that lets nobody in."""

import re
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = ["Allow", "CallAnswer", "Close", "ConnectAnswer", "PublishAnswer", "SubscribeAnswer", "given", "sentence_of"]

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255)]
Reason: TypeAlias = Annotated[str, Meta(max_length=123)]

CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
MOST_SHOWN = 500  # characters of a backend's sentence that a client gets


class Answer(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What all answers have in common: every key is optional."""


class Close(Answer):
    """Closes the connection that asked."""

    code: Annotated[int, Meta(ge=4000, le=4999)]
    reason: Reason = ""

    def __post_init__(self) -> None:
        if len(self.reason.encode()) > 123:
            raise ValueError("a reason has up to 123 bytes (RFC 6455 5.5)")


class Allow(Answer):
    """What the connection may do without being asked about: globs of channels."""

    subscribe: tuple[str, ...] | UnsetType = UNSET
    publish: tuple[str, ...] | UnsetType = UNSET


class ConnectAnswer(Answer):
    """Who it is, and what comes with that."""

    user: Name | None = None
    data: Any = None  # comes back in each later hook of this connection
    channels: tuple[Name, ...] = ()
    welcome: Any = None  # goes to the client
    expires: int | float | None = None  # Unix time in seconds
    renew: bool = False  # then "connect" is asked again, instead of 4001
    allow: Allow | None = None

    def __post_init__(self) -> None:
        for name in self.channels:
            if len(name.encode()) > 255 or CONTROLS.search(name):
                raise ValueError("a channel's name has 1 to 255 bytes and no control characters")


class SubscribeAnswer(Answer):
    """Yes, and perhaps what the channel shows first."""

    message: Any = UNSET
    presence: bool | UnsetType = UNSET
    close: Close | UnsetType = UNSET


class PublishAnswer(Answer):
    """Yes, and perhaps something else, to fewer, or to nobody."""

    message: Any = UNSET
    to: tuple[str, ...] | UnsetType = UNSET
    drop: bool | UnsetType = UNSET
    close: Close | UnsetType = UNSET


class CallAnswer(Answer):
    """What the method returns."""

    result: Any = None
    close: Close | UnsetType = UNSET


def given(answer: Answer) -> dict[str, Any]:
    """Returns the keys of an answer as a dict, without those that it did not have."""
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found


class Error(msgspec.Struct):
    message: str


class Sentence(msgspec.Struct):
    error: Error


_sentences = msgspec.json.Decoder(Sentence)


def sentence_of(body: bytes) -> str:
    """Returns the sentence of a refusal, for the client: ``{"error": {"message": ...}}``; "" where there is none."""
    try:
        return CONTROLS.sub(" ", _sentences.decode(body).error.message)[:MOST_SHOWN]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
