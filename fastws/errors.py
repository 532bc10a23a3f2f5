"""Everything that fastws raises on purpose."""

__all__ = ["ConfigurationError", "FastWSError", "ProtocolError", "Reject"]


class FastWSError(Exception):
    """The root of fastws' own exceptions."""


class ConfigurationError(FastWSError, ValueError):
    """A setting that cannot work; the message names the value and the fix."""


class ProtocolError(FastWSError):
    """The peer broke RFC 6455. Given to ``Listener.on_error``; the connection is being failed with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (close code {code})")
        self.code = code
        self.reason = reason


class Reject(FastWSError):
    """Refuse a handshake, returned or raised by ``Listener.on_handshake``.

    ``status`` is the HTTP status (400 to 599), ``reason`` a sentence that the client sees, ``headers`` more of the
    answer's header fields.
    """

    def __init__(self, status: int = 403, reason: str = "", *, headers: dict[str, str] | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"status {status} refuses nothing: use one from 400 to 599")
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
