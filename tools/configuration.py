"""Makes docs/configuration.md from the declarations of the settings: `python -m tools.configuration`."""

from collections.abc import Iterator
from pathlib import Path

from fastws.command.described import Row, rows
from fastws.command.settings import ARRAYS, SECTIONS
from fastws.command.values import shown

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"

HEAD = """\
# The configuration of `fastws serve`

<!-- Made from the declarations of the settings by `python -m tools.configuration`. -->

`fastws init` writes a `fastws.toml` with comments and fresh secrets, readable by you alone. `fastws serve` reads it
from the working directory, or `fastws serve -c FILE` (or `FASTWS_CONFIG=FILE`) from elsewhere.

```toml
port = 8765
origins = ["https://www.example.org"]

[auth]
secret_file = "/run/secrets/fastws_auth"

[[api.keys]]
name = "shop"
key_file = "/run/secrets/fastws_shop"
allow = ["broadcast"]

[[channels]]
pattern = "room.*"
subscribe = "user"
publish = "member"
```

## Where a value comes from

The first of these that names a setting counts: a flag (`--port 80`, for what is before the first section, and for
logs), the environment (`FASTWS_PORT=80`), the file, the default.

- A setting of a section has the section in its variable: `FASTWS_HOOKS_URL`, `FASTWS_LOG_LEVEL`. An empty variable is
  not set.
- A list is JSON, or words with spaces between them: `FASTWS_ORIGINS="https://a.example https://b.example"`.
- `[[channels]]` and `[[api.keys]]` are JSON: `FASTWS_CHANNELS='[{"pattern": "*", "subscribe": "anyone"}]'`.
- `PORT` counts as `FASTWS_PORT` if that is not set.
- Times are seconds, or a text such as `"1m30s"`, `"250ms"`, `"2h"`.
- Each secret can be in a file of its own: `secret_file` instead of `secret`, `key_file` instead of `key`. A path is
  relative to the working directory.

A name that is not known is an error, not a warning, and says which one you may have meant. All errors are reported at
once, each with its place: `fastws.toml:12: [hooks] 'timout': did you mean timeout?`

| command | |
| --- | --- |
| `fastws check` | reports what is wrong, in certificates and files as well; `--online` asks the backend, too |
| `fastws check --ready URL` | asks a running server whether it is ready: status 0 or 1 |
| `fastws config` | shows each value and where it comes from, without secrets; `--defaults`, `--json`, `--env` |
| `fastws config --schema` | prints a JSON Schema of the file, for completion in editors |
| `fastws explain --user ann --channel room.1` | shows which rule decides, and why |
| `fastws token --user ann` | prints a token; `--check TOKEN` says what is in one |

## What SIGHUP changes

`kill -HUP` (or `systemctl reload fastws`) has the configuration read again. `[[channels]]`, `[[api.keys]]`,
`origins`, the level of the log, the access log and TLS certificates change at once, and connections stay. Anything
else needs a restart; one line in the log says what. If the file has an error, one line in the log says so, and
everything stays as it was.

With `workers` and an application in Python, or where something else has changed, the workers are replaced one after the
other instead: see [workers.md](workers.md).

## Before the first section

"""

TAIL = """
## The options of a server

These are also before the first section. [options.md](options.md) explains them.

"""


def main() -> None:
    PAGE.write_text(page())


def page() -> str:
    """The whole of docs/configuration.md."""
    found = list(rows(skip_missing=True))
    options = [row for row in found if row.is_option]
    top = [row for row in found if len(row.path) == 1 and not row.is_option]
    text = HEAD + table(top)
    for name in SECTIONS:
        inner = [row for row in found if row.path[0] == name and len(row.path) > 1]
        for path in dict.fromkeys(row.path[:-1] for row in inner):
            is_array = name in ARRAYS or len(path) > 1
            title = ".".join(path)
            text += f"\n## `{f'[[{title}]]' if is_array else f'[{title}]'}`\n\n"
            text += table([row for row in inner if row.path[:-1] == path])
    return text + TAIL + ", ".join(f"`{row.path[0]}`" for row in sorted(options)) + ".\n"


def table(found: list[Row]) -> str:
    return "| name | default | meaning |\n| --- | --- | --- |\n" + "".join(f"{line}\n" for line in lines(found))


def lines(found: list[Row]) -> Iterator[str]:
    for row in found:
        default = "needed" if row.is_needed else "none" if row.default in (None, "", ()) else f"`{shown(row.default)}`"
        yield f"| `{row.path[-1]}` | {default} | {row.meaning} |".replace("|  |", "| |")


if __name__ == "__main__":
    main()
