"""Secrets of settings, kept out of whatever is shown."""

__all__ = ["HIDDEN", "SECRETS", "Discreet", "without_password"]

HIDDEN = "********"
SECRETS = {"key", "key_sha256", "password", "secret", "ssl_keyfile_password", "token"}  # names of settings


class Discreet:
    """A struct whose repr shows no secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = []
        for name in self.__struct_fields__:  # type: ignore[attr-defined]
            value = getattr(self, name)
            if name in SECRETS and value is not None:
                value = HIDDEN
            shown.append(f"{name}={without_password(value) if isinstance(value, str) else value!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


def without_password(text: str) -> str:
    """Returns a URL without the name and the password in it; any other text as it is."""
    scheme, colon, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    if not colon or "@" not in authority:
        return text
    return f"{scheme}://{HIDDEN}@{authority.rpartition('@')[2]}{slash}{path}"
