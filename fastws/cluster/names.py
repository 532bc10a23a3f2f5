"""Names of users as they stand in the store."""

from collections.abc import Hashable

__all__ = ["user_named", "user_text"]


def user_text(user: Hashable) -> str:
    """Returns a user's name as it stands in the store; raises TypeError for one that cannot cross nodes."""
    if isinstance(user, str):
        return "$" + user if user[:1] in ("#", "$") else user
    if isinstance(user, int) and not isinstance(user, bool):
        return f"#{user}"
    raise TypeError(f"the user {user!r} is neither a str nor an int, as a server with a backplane needs")


def user_named(text: str) -> str | int:
    """Returns the user whose name `user_text` made a text of."""
    if text.startswith("#"):
        return int(text[1:])
    return text.removeprefix("$")
