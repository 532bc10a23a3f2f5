"""The exceptions of fastws."""

__all__ = ["BackplaneError", "ConfigurationError", "FastWSError", "ProtocolError", "Reject"]


class FastWSError(Exception):
    """The base class of all exceptions of fastws."""


class ConfigurationError(FastWSError, ValueError):
    """A setting that cannot work. The message names the value and the fix."""


class BackplaneError(FastWSError):
    """The store that nodes share did not answer: nobody knows whether it has done what it was told."""


class ProtocolError(FastWSError):
    """The peer violated RFC 6455. Passed to ``Listener.on_error``; the connection is being closed with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} (close code {code})")
        self.code = code
        self.reason = reason


class Reject(FastWSError):
    """Refuses a handshake: return or raise it in ``Listener.on_handshake``.

    ``status`` is the HTTP status (400 to 599), ``reason`` a sentence for the client, ``headers`` additional header
    fields of the answer. ``is_for_scripts=False`` is for whoever must not read why, such as pages of other origins:
    the answer is HTTP even where the client offers to read it from a Close frame.
    """

    def __init__(
        self,
        status: int = 403,
        reason: str = "",
        *,
        headers: dict[str, str] | None = None,
        is_for_scripts: bool = True,
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"status {status} is not an error status: use one from 400 to 599")
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
        self.is_for_scripts = is_for_scripts
