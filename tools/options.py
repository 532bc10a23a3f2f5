"""Generates docs/options.md from the declarations in fastws/config.py: `python -m tools.options`."""

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from fastws.config import EndpointOptions, Options, default_of

PAGE = Path(__file__).parent.parent / "docs" / "options.md"

HEAD = """\
# Options

<!-- Generated from fastws/config.py by `python -m tools.options`. -->

Each option is a keyword argument of `Server(...)`. Those marked "per endpoint" are also keyword arguments of
`server.endpoint(...)`, where they override the server's. All except `auth`, `http`, `sessions` and `ssl` can also be
set on the command line (`--max-backlog 65536`), in the environment (`FASTWS_MAX_BACKLOG=65536`) or in `fastws.toml`
(`max_backlog = 65536`); the first of these three takes precedence. They override the arguments of `Server(...)`, but
not those of `server.endpoint(...)`.

The defaults are chosen for servers that are open to the public. `none` and 0 mean that there is no limit, because only
the application knows a sensible one.

| option | default | per endpoint | meaning |
| --- | --- | --- | --- |
"""

TAIL = """
Some limits are fixed. While an `async` handler runs, up to 64 messages (or `max_message_size` bytes) wait; beyond that
the socket is not read. At most 8 cookies of the same name are tried. A token can have up to 16 KiB, and the reason of a
Close up to 123 bytes. A peer that does not read gets only one pong, for its last ping.
"""


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """Returns the contents of docs/options.md."""
    return HEAD + "".join(f"{row}\n" for row in rows()) + TAIL


def rows() -> Iterator[str]:
    shared = {option.name for option in fields(EndpointOptions)}
    for option in sorted(fields(Options), key=lambda option: option.name):
        per_endpoint = "yes" if option.name in shared else ""
        yield f"| `{option.name}` | {readable(default_of(option))} | {per_endpoint} | {option.metadata['help']} |"


def readable(default: str) -> str:
    """Returns a default, with thousands separators if it has five digits or more."""
    return f"{int(default):,}" if default.isdecimal() and len(default) > 4 else default


if __name__ == "__main__":
    main()
