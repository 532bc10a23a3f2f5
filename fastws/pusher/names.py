"""What the names of channels, events and connections say."""

import re

__all__ = [
    "MOST_NAME",
    "channel_fault",
    "has_client_events",
    "is_cached",
    "is_encrypted",
    "is_presence",
    "is_signed",
    "own_channel",
    "socket_id_of",
    "ws_id_of",
]

MOST_NAME = 200  # characters, of a channel or an event

# Nothing else: a colon would let one signature stand for several subscriptions.
CHANNEL = re.compile(r"[-A-Za-z0-9_=@,.;]+")
USER_CHANNEL = "#server-to-user-"
CACHED = re.compile("(private-encrypted-|private-|presence-)?cache-")
WS_ID = re.compile("([0-9a-f]{10})-([0-9a-f]+)-([0-9a-f]+)")
SOCKET_ID = re.compile("([0-9]{1,13})[.]([0-9]{1,40})")
SLOT_BITS = 32


def channel_fault(name: str) -> str:
    """Returns what is wrong with a channel's name, "" where nothing is."""
    if len(name) > MOST_NAME:
        return f"a channel's name has up to {MOST_NAME} characters"
    bare = name if not name.startswith(USER_CHANNEL) else name.removeprefix(USER_CHANNEL) and "user"
    return "" if CHANNEL.fullmatch(bare) else "a channel's name consists of letters, digits and _-=@,.;"


def is_signed(channel: str) -> bool:
    """Returns whether a subscription needs a signature."""
    return channel.startswith(("private-", "presence-"))


def is_presence(channel: str) -> bool:
    """Returns whether the members of a channel know each other."""
    return channel.startswith("presence-")


def is_encrypted(channel: str) -> bool:
    """Returns whether only the clients can read the events."""
    return channel.startswith("private-encrypted-")


def is_cached(channel: str) -> bool:
    """Returns whether a channel keeps its last event."""
    return CACHED.match(channel) is not None


def has_client_events(channel: str, *, also_public: bool) -> bool:
    """Returns whether members may send to each other in a channel."""
    if is_encrypted(channel) or channel.startswith("#"):
        return False
    return also_public or is_signed(channel)


def own_channel(user_id: str) -> str:
    """Returns the channel that has all connections of a user who has signed in."""
    return USER_CHANNEL + user_id


def socket_id_of(ws_id: str) -> str:
    """Returns the id of a connection as clients of Pusher have it: two whole numbers with a dot between."""
    match = WS_ID.fullmatch(ws_id)
    assert match is not None
    return f"{int(match[1], 16)}.{int(match[3], 16) << SLOT_BITS | int(match[2], 16)}"


def ws_id_of(socket_id: str) -> str | None:
    """Returns the connection's own id, whichever node it is on; None for what was never one."""
    match = SOCKET_ID.fullmatch(socket_id)
    if match is None:
        return None
    serial, slot = divmod(int(match[2]), 1 << SLOT_BITS)
    return f"{int(match[1]):010x}-{slot:x}-{serial:x}"
