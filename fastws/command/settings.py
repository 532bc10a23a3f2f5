"""The configuration: flags, the environment and fastws.toml, put together and checked, each value with its source."""

import importlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, inspect

from ..access.secrets import HIDDEN, SECRETS, Discreet, without_password
from ..config import Options
from ..errors import ConfigurationError
from . import toml
from .values import as_given, fault, nearest, shown, struct_of

if TYPE_CHECKING:
    from .logs import LogSettings

__all__ = [
    "ARRAYS",
    "FILE",
    "PREFIX",
    "SECTIONS",
    "Faults",
    "Settings",
    "Source",
    "TopLevel",
    "load",
    "masked_at",
    "option_kinds",
    "section",
    "show",
]

FILE = Path("fastws.toml")
PREFIX = "FASTWS_"

# What each section of the file is made into. A section is imported where it is used, for some of them are slow to.
SECTIONS = {
    "log": "fastws.command.logs:LogSettings",
    "channels": "fastws.access.rules:ChannelRule",
    "auth": "fastws.access.tokens:AuthSettings",
    "api": "fastws.web.api:ApiSettings",
    "hooks": "fastws.hooks.settings:HookSettings",
    "v1": "fastws.v1.settings:V1Settings",
    "raw": "fastws.v1.raw:RawSettings",
    "pusher": "fastws.pusher.settings:PusherSettings",
    "metrics": "fastws.web.metrics:MetricsSettings",
    "admin": "fastws.web.admin:AdminSettings",
}
EXTRAS = {"auth": "jwt", "hooks": "hooks", "metrics": "metrics"}  # of the distribution, where it is not `server`
ARRAYS = {"channels"}  # those that are [[arrays]] of tables
FLAGS = {"log_level": ("log", "level"), "log_format": ("log", "format"), "access_log": ("log", "access")}


class TopLevel(Discreet, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says before its first section, besides the options of a server."""

    target: Annotated[str | None, Meta(description="the application, as in app:server, instead of the sections")] = None
    reload: Annotated[
        bool, Meta(description="for development: restart whenever a Python file in this directory changes")
    ] = False
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1024)], Meta(description="processes that serve; see workers.md")
    ] = 1
    anonymous: Annotated[
        bool, Meta(description="whether those may connect whom neither a token nor the backend gives a name")
    ] = True
    client_path: Annotated[
        Annotated[str, Meta(pattern="^(/.*)?$")],
        Meta(description="path of the client for browsers, which pages may load; empty: none"),
    ] = "/fastws.js"
    ready_needs_hooks: Annotated[
        bool, Meta(description="whether /readyz answers 503 while the backend of [hooks] cannot be reached")
    ] = False
    ssl_certfile: Annotated[
        str | None, Meta(description="file of the TLS certificate and its chain, as PEM; read again when it changes")
    ] = None
    ssl_keyfile: Annotated[
        str | None, Meta(description="file of the certificate's key, as PEM; by default it is in ssl_certfile")
    ] = None
    ssl_keyfile_password: Annotated[str | None, Meta(description="password of ssl_keyfile")] = None
    ssl_keyfile_password_file: Annotated[
        str | None, Meta(description="file that holds the password of ssl_keyfile")
    ] = None
    ssl_ca_certs: Annotated[
        str | None, Meta(description="file of the authorities that clients' certificates come from, as PEM")
    ] = None
    ssl_client_cert: Annotated[
        Literal["required", "optional"] | None, Meta(description="whether clients need a certificate of their own")
    ] = None


class Faults(ConfigurationError):
    """All that is wrong with a configuration, one sentence each."""

    def __init__(self, sentences: Collection[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = tuple(sentences)


@dataclass(frozen=True)
class Source:
    """Where a value was said: ``flag``, ``env``, ``file`` or ``default``, under which name, on which line."""

    kind: str
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.name}:{self.line}" if self.line else self.name
        return where if self.kind == "file" else f"{self.kind} {where}".strip()

    @property
    def prefix(self) -> str:
        """What a sentence about the value begins with; a flag needs no telling where it is."""
        if self.kind in ("flag", "default"):
            return ""
        return f"{self.name}:{self.line}: " if self.line else f"{self.name}: "


DEFAULT = Source("default")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is to run, and how; a section that nobody configured is None.

    ``options`` are those of a Server that were given. ``sources`` tells where each value came from, by its path, such
    as ("hooks", "url"); ``lines`` where the file says what is within a list of tables. What neither has is a default.
    """

    options: dict[str, Any] = field(default_factory=dict)
    anonymous: bool = True
    channels: tuple[Any, ...] = ()
    auth: Any = None
    api: Any = None
    hooks: Any = None
    v1: Any = None
    raw: Any = None
    pusher: Any = None
    metrics: Any = None
    admin: Any = None
    log: "LogSettings | None" = None
    top: TopLevel = field(default_factory=TopLevel)
    file: Path | None = None
    sources: Mapping[toml.Path, Source] = field(default_factory=dict)
    lines: Mapping[toml.Path, int] = field(default_factory=dict)

    @property
    def client_path(self) -> str:
        """Where the client for browsers is; "" where it is not."""
        return self.top.client_path

    @property
    def ready_needs_hooks(self) -> bool:
        """Whether `/readyz` is 503 while the backend cannot be reached."""
        return self.top.ready_needs_hooks

    @property
    def sections(self) -> list[str]:
        """The sections that say what is served; [log] says nothing of that."""
        return [name for name in SECTIONS if name != "log" and getattr(self, name)]

    def located(self, sentence: str) -> str:
        """A sentence that begins with the name of an option, and where that was said."""
        name = sentence.partition("=")[0].partition(" ")[0]
        return self.sources[(name,)].prefix + sentence if (name,) in self.sources else sentence

    @property
    def is_empty(self) -> bool:
        """Whether nobody has said what to serve."""
        return self.file is None and self.top.target is None and not self.sections


def load(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Returns the configuration; raises Faults, which tell all that cannot work.

    ``path`` is that of the file, which must be there; None: fastws.toml in the working directory, if there is one.
    ``flags`` are top-level names, or those of `FLAGS`, to values; None and () are not given.
    """
    return _Loader(path, environment, flags).settings()


@cache
def section(name: str) -> type[msgspec.Struct]:
    """The struct of a section; raises ConfigurationError where a package that it needs is missing."""
    module, _, attribute = SECTIONS[name].partition(":")
    try:
        struct: type[msgspec.Struct] = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        if (error.name or "").startswith("fastws."):
            raise ConfigurationError(f"[{name}] is not in this version of fastws: leave it out") from None
        extra = EXTRAS.get(name, "server")
        raise ConfigurationError(f"[{name}] needs {error.name}: pip install 'fastws-server[{extra}]'") from None
    return struct


@cache
def option_kinds() -> dict[str, inspect.Type]:
    """The options of a Server that text can say, and their types."""
    kinds = {option.name: inspect.type_info(option.type) for option in fields(Options)}
    as_text = [option.name for option in fields(Options) if option.metadata["parse"] and _is_object(kinds[option.name])]
    kinds |= dict.fromkeys(as_text, inspect.type_info(str | None))
    return {name: kind for name, kind in kinds.items() if not _is_object(kind)}


def _is_object(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return any(map(_is_object, kind.types))
    return isinstance(kind, inspect.CustomType | inspect.AnyType)


def show(path: toml.Path, value: Any) -> str:
    """A value for people to read, secrets masked."""
    return shown(masked_at(path, value))


def masked_at(path: toml.Path, value: Any) -> Any:
    """A value without the secret that it is, or that is in it."""
    return HIDDEN if value is not None and path[-1] in SECRETS else masked(value)


def masked(value: Any) -> Any:
    """A value without the secrets in it: those of tables, and the password in a URL."""
    if isinstance(value, msgspec.Struct):
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if name in SECRETS and inner is not None else masked(inner) for name, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item) for item in value]
    return without_password(value) if isinstance(value, str) else value


class _Loader:
    """Reads one configuration; collects what is wrong with it."""

    def __init__(self, path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> None:
        self._environment = {name: value for name, value in environment.items() if value}
        self._flags = {
            FLAGS.get(name, (name,)): (name, value) for name, value in flags.items() if value not in (None, ())
        }
        self._faults: list[str] = []
        self._sources: dict[toml.Path, Source] = {}
        self._file = path if path is not None else FILE if FILE.exists() else None
        self._content, self._lines = self._read()

    def _read(self) -> tuple[dict[str, Any], dict[toml.Path, int]]:
        if self._file is None:
            return {}, {}
        try:
            return toml.parse(self._file.read_bytes().decode())
        except toml.BadFile as error:
            raise Faults([f"{self._file}:{error.line}: {error}"]) from None
        except UnicodeDecodeError:
            raise Faults([f"{self._file} is not UTF-8: save it as that"]) from None
        except OSError as error:
            raise Faults([f"{self._file} cannot be read: {error.strerror}"]) from None

    def settings(self) -> Settings:
        self._look_for_unknown()
        options = dict(self._options())
        top = self._struct(TopLevel, (), self._given((), TopLevel.__struct_fields__))
        found: dict[str, Any] = {name: self._section(name) for name in SECTIONS}
        if not self._faults:
            try:
                Options(**options)
            except ConfigurationError as error:
                self._faults.append(str(error))
        if self._faults:
            raise Faults(self._faults)
        assert isinstance(top, TopLevel)
        found["channels"] = found["channels"] or ()
        return Settings(
            options=options,
            top=top,
            anonymous=top.anonymous,
            file=self._file,
            sources=self._sources,
            lines=self._lines,
            **found,
        )

    # -- what was said, and where

    def _given(self, path: toml.Path, names: Collection[str]) -> dict[str, Any]:
        """Of these names below a path, what was said first: by a flag, by the environment, by the file."""
        table: Any = self._content
        for step in path:
            table = table.get(step, {}) if isinstance(table, dict) else {}
        given = {}
        for name in names:
            here = (*path, name)
            variable = PREFIX + "_".join(map(str, here)).upper()
            if variable == f"{PREFIX}PORT" and variable not in self._environment and "PORT" in self._environment:
                variable = "PORT"  # as platforms say it that start containers
            if here in self._flags:
                flag, given[name] = self._flags[here]
                self._sources[here] = Source("flag", f"--{flag.replace('_', '-')}")
            elif variable in self._environment:
                given[name] = self._environment[variable]
                self._sources[here] = Source("env", variable)
            elif isinstance(table, dict) and name in table:
                given[name] = table[name]
                self._sources[here] = self._source_of(here)
        return given

    def _source_of(self, path: toml.Path) -> Source:
        """Where a value is that has no source of its own: at the nearest line above it that is known."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._sources:
                return self._sources[path[:end]]
            if path[:end] in self._lines:
                return Source("file", str(self._file), self._lines[path[:end]])
        return Source("file", str(self._file)) if self._file is not None else DEFAULT

    def _complain(self, path: toml.Path, sentence: str) -> None:
        label = _label(path[:-1])
        if sentence.startswith("["):
            label = ""  # it says itself which section it is about
        self._faults.append(f"{self._source_of(path).prefix}{label}{sentence}")

    def _look_for_unknown(self) -> None:
        top = {*option_kinds(), *TopLevel.__struct_fields__, *SECTIONS}
        for name, value in self._content.items():
            if name in top:
                continue
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                self._complain((name,), f"[{name}] is not a section: {nearest(name, SECTIONS)}")
            else:
                self._complain((name,), f"{name!r} is not an option: {nearest(name, top - SECTIONS.keys())}")
        for variable in self._environment:
            name = variable.removeprefix(PREFIX).lower()
            within, _, rest = name.partition("_")
            if variable.startswith(PREFIX) and within in SECTIONS.keys() - ARRAYS and rest:
                known = self._fields_of(within)
                if known and rest not in known:
                    self._faults.append(f"{variable}: [{within}] {rest!r}: {nearest(rest, known)}")

    def _fields_of(self, name: str) -> Collection[str]:
        try:
            return section(name).__struct_fields__
        except ConfigurationError:
            return ()  # said where its values are

    # -- values

    def _options(self) -> Iterator[tuple[str, Any]]:
        declared = {option.name: option for option in fields(Options)}
        for name, value in self._given((), option_kinds()).items():
            metadata = declared[name].metadata
            if metadata["parse"] is not None:
                value = self._parsed((name,), value, metadata["parse"])
            elif isinstance(value, str) and not metadata["help"].startswith("seconds"):
                value = _number(value, option_kinds()[name])
            else:
                value = as_given(value, option_kinds()[name])
            wrong = metadata["check"](value)
            if wrong:
                self._complain((name,), f"{name}={metadata['show'](value)}{wrong}")
            yield name, value

    def _parsed(self, path: toml.Path, value: Any, parse: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and str(value).isdecimal():
            try:
                least = parse(str(value))
            except ValueError:
                return value
            return least if least >= 0o600 else value  # 0o640 and 640 cannot be mistaken for each other
        try:
            return parse(value) if isinstance(value, str) else value
        except ValueError:
            return value

    def _section(self, name: str) -> Any:
        """A section as its struct; an array of tables as a tuple of them; None where nobody said anything."""
        variables = [variable for variable in self._environment if variable.startswith(f"{PREFIX}{name.upper()}_")]
        is_said = name in self._content or (name,) in self._flags or f"{PREFIX}{name.upper()}" in self._environment
        if not (is_said or variables or any(path[0] == name for path in self._flags)):
            return None
        try:
            struct = section(name)
        except ConfigurationError as error:
            self._faults.append(f"{self._source_of((name,)).prefix}{error}")
            return None
        if name in ARRAYS:
            return self._structs(struct, (name,), self._given((), [name]).get(name))
        if not isinstance(self._content.get(name, {}), dict):
            self._complain((name,), f"{name}={shown(self._content[name])} must be a section, [{name}]")
            return None
        unknown = self._content.get(name, {}).keys() - struct.__struct_fields__
        given = self._given((name,), struct.__struct_fields__)
        return self._struct(struct, (name,), {**{key: self._content[name][key] for key in unknown}, **given})

    def _structs(self, struct: type[msgspec.Struct], path: toml.Path, value: Any) -> Any:
        """A tuple of structs, of a list of tables or of JSON that says one."""
        if isinstance(value, str):
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError as error:
                self._complain(path, f"{path[-1]} is not JSON: {error}")
                return None
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self._complain(path, f"{path[-1]}={shown(masked(value))} must be a list of tables, [[{_dotted(path)}]]")
            return None
        return tuple(self._struct(struct, (*path, number), item) for number, item in enumerate(value))

    def _struct(self, struct: type[msgspec.Struct], path: toml.Path, given: dict[str, Any]) -> Any:
        """A struct of what was given for it; None, and a fault more, where that cannot be."""
        hints = get_type_hints(struct, include_extras=True)
        kinds = {each.name: each for each in inspect.type_info(struct).fields}  # type: ignore[attr-defined]
        before = len(self._faults)
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in kinds:
                self._complain((*path, name), f"{name!r}: {nearest(name, kinds)}")
            else:
                values[name] = self._value((*path, name), value, kinds[name].type, hints[name])
        for name, each in kinds.items():
            if each.required and name not in given:
                self._complain((*path, name), f"{name} is missing: {_example(name, each.type)}")
            twin = name.removesuffix("_file")
            if twin != name and twin in given and name in given:
                self._complain((*path, name), f"{twin} and {name} say the same: give one of them")
        if len(self._faults) > before:
            return None
        try:
            return struct(**values)
        except (ValueError, TypeError) as error:
            named = max((name for name in values if str(error).startswith(name)), key=len, default="")
            self._complain((*path, named), str(error))
            return None

    def _value(self, path: toml.Path, value: Any, kind: inspect.Type, hint: Any) -> Any:
        inner, is_list = struct_of(kind)
        if inner is not None and is_list:
            return self._structs(inner, path, value)
        value = as_given(value, kind)
        if inner is not None and isinstance(value, dict):
            return self._struct(inner, path, value)
        wrong = fault(value, kind, hint)
        if not wrong:
            return msgspec.convert(value, hint)
        name = str(path[-1])
        seen = HIDDEN if name in SECRETS else repr(value)
        self._complain(path, f"{name}={seen}{wrong}")
        return None


def _number(text: str, kind: inspect.Type) -> Any:
    """A text as an option has it that is not a time: "1m" is not a rate."""
    value = as_given(text, kind)
    if isinstance(value, float):
        try:
            return float(text)
        except ValueError:
            return text
    return value


def _example(name: str, kind: inspect.Type) -> str:
    return f"add {name} = ..." if struct_of(kind)[0] is None else f"add a table for {name}"


def _label(path: toml.Path) -> str:
    """What a sentence begins with: the section that it is about."""
    if not path:
        return ""
    name = _dotted(path)
    return f"[[{name}]] " if isinstance(path[-1], int) else f"[{name}] "


def _dotted(path: toml.Path) -> str:
    return ".".join(str(step) for step in path if isinstance(step, str))
