"""Makes docs/options.md from the declarations in fastws/config.py: `python -m tools.options`."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from fastws.config import EndpointOptions, Options, default_of

PAGE = Path(__file__).parent.parent / "docs" / "options.md"

HEAD = """\
# Options

<!-- Made from fastws/config.py by `python -m tools.options`. -->

Each option is a keyword of `Server(...)`. Those marked "per endpoint" are also keywords of `server.endpoint(...)`, and
override the server's there. All but `auth`, `http`, `sessions` and `ssl` can also be given on the command line
(`--max-backlog 65536`), in the environment (`FASTWS_MAX_BACKLOG=65536`) or in `fastws.toml` (`max_backlog = 65536`); of
these three the first that names an option counts. It replaces what `Server(...)` was given, but not what an endpoint
was given for itself.

The defaults are meant for servers that are open to strangers. `none` and 0 mean no limit, where only the application
knows one.

| option | default | per endpoint | meaning |
| --- | --- | --- | --- |
"""

TAIL = """
Some limits are fixed: 64 messages (or `max_message_size` bytes) wait while an `async` handler runs, then the socket is
not read; 8 cookies of one name are looked at; a token has at most 16 KiB, and the reason of a Close at most 123 bytes;
a peer that does not read gets one pong, for its last ping.
"""


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole of docs/options.md."""
    return HEAD + "".join(f"{row}\n" for row in rows()) + TAIL


def rows() -> Iterator[str]:
    shared = {option.name for option in fields(EndpointOptions)}
    for option in sorted(fields(Options), key=lambda option: option.name):
        per_endpoint = "yes" if option.name in shared else ""
        yield f"| `{option.name}` | {readable(default_of(option))} | {per_endpoint} | {option.metadata['help']} |"


def readable(default: str) -> str:
    """A default with its thousands apart, where there are ten of them or more."""
    return f"{int(default):,}" if default.isdecimal() and len(default) > 4 else default


if __name__ == "__main__":
    main()
