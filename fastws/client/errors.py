"""What a client raises."""

from ..errors import FastWSError

__all__ = ["ChannelError", "ConnectionClosed", "ConnectionRefused"]


class ConnectionClosed(FastWSError):
    """The connection is over, and does not come back."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with code {code}, reason {reason!r}")
        self.code = code
        self.reason = reason


class ConnectionRefused(FastWSError):
    """The server does not let us in; ``status`` is that of HTTP, ``message`` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"refused with status {status}: {message}")
        self.status = status
        self.message = message


class ChannelError(FastWSError):
    """What was asked was not done. ``retry``: whether trying again may help.

    ``code`` is one of the protocol's, or one of ours: ``unavailable`` (there is no connection, nothing was sent),
    ``lost`` (it was sent, and the connection ended before the answer), ``closed`` (there will be none any more),
    ``left`` (the server took us out of the channel).
    """

    def __init__(self, code: str, message: str, retry: bool = False, channel: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry = retry
        self.channel = channel
