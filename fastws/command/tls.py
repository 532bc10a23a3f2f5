"""TLS of files: a context whose certificate changes while the server runs."""

import asyncio
import logging
import os
import ssl
from pathlib import Path

from ..errors import ConfigurationError
from .settings import TopLevel

__all__ = ["Certificates"]

logger = logging.getLogger("fastws.command")

GLANCE = 60.0  # seconds between two looks at the files


class Certificates:
    """A server's certificate and key, and the context that new connections get.

    Raises ConfigurationError, a sentence that names the file, for what cannot work.
    """

    def __init__(self, settings: TopLevel) -> None:
        self._settings = settings
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._state()
        self._load(self.context)

    @classmethod
    def of(cls, settings: TopLevel) -> "Certificates | None":
        """Those that the settings name; None where there is no TLS."""
        if settings.ssl_certfile is not None:
            return cls(settings)
        for name in TopLevel.__struct_fields__:
            if name.startswith("ssl_") and getattr(settings, name) is not None:
                raise ConfigurationError(f"{name} needs ssl_certfile: name the certificate's file, too")
        return None

    def load_again(self) -> None:
        """Give new connections what the files hold now; raises ConfigurationError, and then the old ones stay."""
        self._seen = self._state()
        self.check()
        self._load(self.context)

    def check(self) -> None:
        """Raises ConfigurationError if the files do not work; a pair that does not match would spoil a live context."""
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the files once a minute."""
        self.look()
        loop.call_later(GLANCE, self.watch, loop)

    def look(self) -> None:
        """Load the files again if they have changed; what is wrong with them is a line in the log."""
        if self._state() == self._seen:
            return
        try:
            self.load_again()
        except ConfigurationError as error:
            logger.error("the old certificate stays: %s", error)
        else:
            logger.info("the certificate was read again: %s", self._settings.ssl_certfile)

    def _state(self) -> list[tuple[int, int, int] | None]:
        return [_state(file) for file in self._files()]

    def _files(self) -> list[str]:
        names = (self._settings.ssl_certfile, self._settings.ssl_keyfile, self._settings.ssl_ca_certs)
        return [name for name in names if name is not None]

    def _load(self, context: ssl.SSLContext) -> None:
        settings = self._settings
        assert settings.ssl_certfile is not None
        for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
            _check(name, getattr(settings, name))
        password = self._password()
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, lambda: password)
        except ssl.SSLError as error:
            raise ConfigurationError(self._fault(error)) from None
        if settings.ssl_ca_certs is not None:
            try:
                context.load_verify_locations(settings.ssl_ca_certs)
            except ssl.SSLError:
                raise ConfigurationError(
                    f"ssl_ca_certs={settings.ssl_ca_certs!r} holds no certificate: give a file of PEM"
                ) from None
        if settings.ssl_client_cert is not None:
            if settings.ssl_ca_certs is None:
                raise ConfigurationError("ssl_client_cert needs ssl_ca_certs: name the file of their authorities, too")
            is_required = settings.ssl_client_cert == "required"
            context.verify_mode = ssl.CERT_REQUIRED if is_required else ssl.CERT_OPTIONAL

    def _password(self) -> str:
        """That of the key; "", rather than a question at the terminal, where there is none."""
        file = self._settings.ssl_keyfile_password_file
        if file is None:
            return self._settings.ssl_keyfile_password or ""
        _check("ssl_keyfile_password_file", file)
        return Path(file).read_text().rstrip("\r\n")

    def _fault(self, error: ssl.SSLError) -> str:
        certificate = f"ssl_certfile={self._settings.ssl_certfile!r}"
        key = certificate if self._settings.ssl_keyfile is None else f"ssl_keyfile={self._settings.ssl_keyfile!r}"
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{key} is not the key of {certificate}: give the two that belong together"
        if not _holds(self._settings.ssl_certfile, "CERTIFICATE"):
            return f"{certificate} holds no certificate: give a file of PEM"
        if not _holds(self._settings.ssl_keyfile or self._settings.ssl_certfile, "PRIVATE KEY"):
            return f"{key} holds no private key: give a file of PEM as ssl_keyfile"
        if _holds(self._settings.ssl_keyfile or self._settings.ssl_certfile, "ENCRYPTED"):
            return f"{key} cannot be decrypted: give the right ssl_keyfile_password"
        return f"{key} and {certificate} cannot be loaded: {error.reason or error}"


def _check(name: str, file: str | None) -> None:
    if file is None:
        return
    try:
        Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}={file!r} cannot be read: {error.strerror}") from None


def _holds(file: str | None, what: str) -> bool:
    """Whether a file of PEM has a block, or a header, of that name."""
    return file is not None and what.encode() in Path(file).read_bytes()


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None  # between two versions of it, say
    return found.st_mtime_ns, found.st_size, found.st_ino
