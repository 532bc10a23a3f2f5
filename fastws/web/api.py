"""The HTTP API: publish, send, kick and look from any backend."""

import asyncio
import re
import time
from collections.abc import Callable, Hashable
from functools import partial
from inspect import isawaitable
from typing import Annotated, Any, TypeAlias

import msgspec
import orjson
from msgspec import UNSET, Meta, UnsetType

from .. import __version__
from .._core import WebSocket, check_close
from ..access.keys import Key, Keys, KeySettings
from ..answers import Answer, facts, refusal
from ..errors import ConfigurationError, Reject
from ..hub import Hub
from ..server import Server
from . import asked, shapes
from .app import BadRequest, Web, WebRequest
from .logs import Logs, Sent, check_kept
from .openapi import document
from .operations import COMMANDS, OPERATIONS, Operation
from .port import with_own_port
from .refusals import Refusals
from .repeats import Repeats

__all__ = ["API", "ApiSettings", "add_to", "plain"]

BODY_MARGIN = 64 * 1024  # bytes of a body beside the message
TURN = 0.002  # seconds of a batch until others have the loop
JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}
PAGE_HEADER = "x-fastws-page"  # tells the status page's requests from those of others who have its key
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")

encode = msgspec.json.encode

#: What is left to do of a command that was looked through: returns its answer, or an awaitable of it.
Do: TypeAlias = Callable[[], Any]


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``[api]``."""

    path: Annotated[str, Meta(description="where the API is")] = "/api"
    listen: Annotated[str, Meta(description="host:port of a port of its own, without TLS; by default the server's")] = (
        ""
    )
    keys: Annotated[tuple[KeySettings, ...], Meta(description="who may call it; by default nobody")] = ()


def add_to(web: Web, hub: Hub, settings: ApiSettings | None = None, *, keys: Keys | None = None) -> "API":
    """Serve the API of a hub's server by ``web``, which is to be the server's ``http``; returns it.

    With ``settings.listen`` it has a port of its own, which opens and closes with ``web``.
    """
    settings = settings or ApiSettings()
    path = settings.path.rstrip("/")
    if path and not path.startswith("/"):
        raise ConfigurationError(f"[api] path={settings.path!r} does not begin with a slash: try {'/' + path!r}")
    api = API(hub, web, Keys(settings.keys) if keys is None else keys, path)
    web.run_with(api.refusals)
    target = web
    if settings.listen:
        target, api.server = with_own_port(web, "api", settings.listen)
        api.web = target
    for operation in OPERATIONS:
        target.add(operation.method, path + operation.path, api.handler(operation), api.at_once(operation))
    return api


class API:
    """The operations of the API on one hub.

    ``web`` serves it, on the port of ``server`` if it has one of its own. ``refusals`` are the last ones.
    ``has_readonly_page``: what the status page asks for is refused, unless it only reads.
    """

    def __init__(self, hub: Hub, web: Web, keys: Keys, path: str) -> None:
        self.hub = hub
        self.web = web
        self.keys = keys
        self.path = path
        self.refusals = Refusals()
        self.server: Server | None = None
        self.has_readonly_page = False
        self._started = time.time()
        self._repeats = Repeats()
        self._batches = asyncio.Lock()  # one at a time, which lets go of the loop now and then
        self._decoders = {o.name: msgspec.json.Decoder(o.body) for o in OPERATIONS if o.body not in (None, bytes)}
        self._commands: dict[str, Callable[[Key, Any], Do]] = {
            "broadcast": self.broadcast,
            "send": self.send,
            "subscribe": self.subscribe,
            "unsubscribe": self.unsubscribe,
            "close": self.close,
        }
        self._logs = Logs(hub)
        self._log_operations = {"log": self._logs.look, "clear": self._logs.clear, "delete": self._logs.delete}
        self._reads: dict[str, Callable[[Key, WebRequest], Any]] = {
            "channels": self.channels,
            "channel": self.channel,
            "user": self.user,
            "connection": self.connection,
            "refusals": self.last_refusals,
            "info": self.info,
        }

    # -- from requests to commands, and back

    def handler(self, operation: Operation) -> Callable[[WebRequest], Any]:
        """Returns what answers the requests of an operation."""
        if operation.name == "openapi":
            return self._describe
        if operation.name in self._reads:
            return partial(self._read, operation, self._reads[operation.name])
        if operation.name in self._log_operations:
            return partial(self._log, operation, self._log_operations[operation.name])
        if operation.name in self._commands:
            return partial(self._command, operation, self._commands[operation.name])
        return partial({"publish": self._publish, "batch": self._batch}[operation.name], operation)

    def at_once(self, operation: Operation) -> Callable[[WebRequest, bytes], Answer] | None:
        """Returns what answers a command whose body is there, unless that may have to wait for a store."""
        if any(manager.reaches_others for manager in self.hub.managers):
            return None
        command = self._commands.get(operation.name)
        return None if command is None else partial(self._command_at_once, operation, command)

    @property
    def body_limit(self) -> int:
        """Bytes that a body may have."""
        return self.hub.server.options.max_message_size + BODY_MARGIN

    def _key(self, operation: Operation, request: WebRequest) -> Key:
        key = self.keys.check(request.headers, operation.scope, request.peer)
        if self.has_readonly_page and operation.scope != "read" and PAGE_HEADER in request.headers:
            raise Reject(403, "the status page is read-only: [admin] readonly in fastws.toml")
        return key

    async def _command(self, operation: Operation, command: Callable[[Key, Any], Do], request: WebRequest) -> Answer:
        key = self._key(operation, request)
        asked.no_query(request)
        asked.need_json(request)
        do = command(key, self._decoded(operation, await request.body(self.body_limit)))
        return Answer(200, encode(await settled(do())), JSON)

    def _command_at_once(
        self, operation: Operation, command: Callable[[Key, Any], Do], request: WebRequest, body: bytes
    ) -> Answer:
        key = self._key(operation, request)
        asked.need_json(request)
        return Answer(200, encode(command(key, self._decoded(operation, body))()), JSON)

    def _decoded(self, operation: Operation, body: bytes) -> Any:
        try:
            return self._decoders[operation.name].decode(body)
        except msgspec.ValidationError as error:
            raise BadRequest(*asked.fault(str(error))) from None
        except UnicodeDecodeError:
            raise BadRequest("the body is not UTF-8") from None
        except RecursionError:
            raise BadRequest("the body is nested too deeply") from None
        except msgspec.DecodeError as error:
            raise BadRequest(f"the body is not JSON: {error}") from None

    def _read(self, operation: Operation, read: Callable[[Key, WebRequest], Any], request: WebRequest) -> Answer:
        key = self._key(operation, request)
        asked.no_query(request, operation.query)
        return Answer(200, encode(read(key, request)), JSON)

    async def _log(self, operation: Operation, do: Callable[[str, WebRequest], Any], request: WebRequest) -> Answer:
        key = self._key(operation, request)
        asked.no_query(request, operation.query)
        self._check_channel(key, request.params["name"], "name")
        return Answer(200, encode(await do(request.params["name"], request)), JSON)

    def _describe(self, request: WebRequest) -> Answer:
        described = document(self.path, [manager.path for manager in self.hub.managers])
        return Answer(200, orjson.dumps(described, option=orjson.OPT_INDENT_2), {"Content-Type": "application/json"})

    async def _batch(self, operation: Operation, request: WebRequest) -> Answer:
        """All of it is looked through before any of it is done: a fault refuses it all, a missing right its command."""
        key = self._key(operation, request)
        asked.no_query(request)
        asked.need_json(request)
        body = await request.body(self.body_limit)
        async with self._batches:
            await asyncio.sleep(0)  # held over a turn of the loop, so that no two batches are carried out in one
            return await self._carry_out(key, operation, request, body)

    async def _carry_out(self, key: Key, operation: Operation, request: WebRequest, body: bytes) -> Answer:
        batch: shapes.Batch = self._decoded(operation, body)
        failed = Failed(request)
        turn = Turn()
        prepared = []
        for index, command in enumerate(batch.commands):
            prepared.append(self._prepare(key, command, index, failed))
            await turn.may_end()
        results: list[Any] = []
        for do in prepared:
            try:
                results.append(await settled(do()))
            except Reject as reject:
                results.append(failed(reject.status, reject.reason))
            except Exception as error:
                results.append(failed(500, "internal server error", error))
            await turn.may_end()
        return Answer(200, encode(shapes.Results(results)), JSON)

    def _prepare(self, key: Key, command: shapes.Command, index: int, failed: "Failed") -> Callable[[], Any]:
        """What a command of a batch will do; raises BadRequest for a fault in it."""
        where = f"$.commands[{index}]"
        chosen = [name for name in COMMANDS if getattr(command, name) is not UNSET]
        if len(chosen) != 1:
            raise BadRequest(f"a command is one of {', '.join(COMMANDS)}; here are {len(chosen)}", where)
        name = chosen[0]
        try:
            key.require(COMMANDS[name])
            return self._commands[name](key, getattr(command, name))
        except BadRequest as fault:
            raise BadRequest(fault.reason, f"{where}.{name}{(fault.field or '$')[1:]}") from None
        except Reject as reject:
            return partial(_same, failed(reject.status, reject.reason))

    async def _publish(self, operation: Operation, request: WebRequest) -> Answer:
        key = self._key(operation, request)
        asked.no_query(request, operation.query)
        channel = request.params["name"]
        self._check_channel(key, channel, "name")
        endpoint = request.query.get("endpoint")
        self._check_endpoint(endpoint, "endpoint")
        kind = asked.kind(request)
        message = asked.as_said(kind, await request.body(self.body_limit))
        to, users = request.query_all("to") or None, request.query_all("users") or None
        exclude = request.query_all("exclude") or None
        latest_key = request.query.get("latest_key")
        compress = asked.flag(request, "compress")
        kept = self._kept(channel, endpoint, to, users, exclude)
        check_kept(kept, latest_key, compress)
        if kept is not None:
            published = await self._logs.append(channel, Sent(message, latest_key, None, endpoint))
            return Answer(200, encode(shapes.Connections(published.connections, str(published.position))), JSON)
        count = self.hub.broadcast(
            channel, message, to=to, users=users, exclude=exclude, endpoint=endpoint, compress=compress
        )
        return Answer(200, encode(shapes.Connections(count)), JSON)

    # -- commands

    def broadcast(self, key: Key, command: shapes.Broadcast) -> Do:
        """Send to the members of a channel or of several."""
        message = asked.message(command)
        if command.channels is UNSET:
            if command.channel is UNSET:
                raise BadRequest("channel or channels is needed", "$.channel")
            self._check_channel(key, command.channel, "$.channel")
        elif command.channel is not UNSET:
            raise BadRequest("channel and channels are both given: choose one", "$.channels")
        else:
            for index, name in enumerate(command.channels):
                self._check_channel(key, name, f"$.channels[{index}]")
        endpoint = asked.value(command.endpoint)
        self._check_endpoint(endpoint, "$.endpoint")
        to, users, exclude = asked.value(command.to), asked.value(command.users), asked.value(command.exclude)
        latest_key, compress = asked.value(command.latest_key), asked.value(command.compress)
        whom = {"to": to, "users": users, "exclude": exclude, "endpoint": endpoint}
        send = partial(self.hub.broadcast, message=message, compress=compress, **whom)
        channels: Any = [command.channel] if command.channels is UNSET else command.channels
        kept = {channel: self._kept(channel, endpoint, to, users, exclude) for channel in channels}
        for each in kept.values():
            check_kept(each, latest_key, compress)

        def once(channel: str) -> int:
            return self._once(key, channel, command.key, partial(send, channel))

        if any(kept.values()):
            repeated = None if command.key is UNSET else f"{key.name} {command.key}"
            sent = Sent(message, latest_key, repeated, endpoint)
            return partial(self._append, kept, sent, once, command.channels is UNSET)
        if command.channels is UNSET:
            return lambda: shapes.Connections(once(channels[0]))
        return lambda: shapes.ConnectionsByChannel({channel: once(channel) for channel in channels})

    def _kept(self, channel: str, endpoint: str | None, *narrowed: Any) -> str | None:
        """What a channel keeps of a message; nothing of one that is not for all members."""
        return self.hub.keeps(channel, endpoint) if narrowed == (None, None, None) else None

    async def _append(
        self, kept: dict[str, str | None], sent: Sent, once: Callable[[str], int], is_single: bool
    ) -> shapes.Connections | shapes.ConnectionsByChannel:
        """Send to channels of which some have logs; a repeated request is known there by its id, on any node."""
        counts, positions = {}, {}
        for channel, keeps in kept.items():
            if keeps is None:
                counts[channel] = once(channel)
            else:
                published = await self._logs.append(channel, sent)
                counts[channel], positions[channel] = published.connections, str(published.position)
        if is_single:
            channel = next(iter(kept))
            return shapes.Connections(counts[channel], positions[channel])
        return shapes.ConnectionsByChannel(counts, positions)

    def send(self, key: Key, command: shapes.Send) -> Do:
        """Send to users or connections."""
        message = asked.message(command)
        users, to = asked.addressed(command)
        exclude, compress = asked.value(command.exclude), asked.value(command.compress)
        send = partial(self.hub.send, message, users=users, to=to, exclude=exclude, compress=compress)
        return lambda: shapes.Connections(self._once(key, "", command.key, send))  # no channel has an empty name

    def _once(self, key: Key, channel: str, repeated: str | UnsetType, do: Callable[[], int]) -> int:
        return do() if repeated is UNSET else self._repeats.once(key.name, channel, repeated, do)

    def subscribe(self, key: Key, command: shapes.Subscribe) -> Do:
        """Have connections join a channel."""
        users, to = asked.addressed(command)
        self._check_channel(key, command.channel, "$.channel")
        return lambda: shapes.Connections(self.hub.subscribe(command.channel, users=users, to=to))

    def unsubscribe(self, key: Key, command: shapes.Unsubscribe) -> Do:
        """Have connections leave a channel."""
        users, to = asked.addressed(command)
        self._check_channel(key, command.channel, "$.channel")
        return lambda: shapes.Connections(self.hub.unsubscribe(command.channel, users=users, to=to))

    def close(self, key: Key, command: shapes.Close) -> Do:
        """Close connections."""
        channel, session = asked.value(command.channel), asked.value(command.session)
        users, to = asked.value(command.users), asked.value(command.to)
        if channel is session is users is to is None:
            raise BadRequest("users, to, session or channel is needed", "$")
        for field, code, reason in (("$.code", command.code, ""), ("$.reason", 1000, command.reason)):
            try:
                check_close(code, reason)
            except ValueError as error:
                raise BadRequest(str(error), field) from None
        if channel is not None:
            self._check_channel(key, channel, "$.channel")
        whom = {"users": users, "to": to, "session": session, "channel": channel}
        return lambda: shapes.Connections(self.hub.close(**whom, code=command.code, reason=command.reason))

    def _check_channel(self, key: Key, name: str, field: str) -> None:
        if not name or len(name.encode()) > shapes.NAME_BYTES or CONTROL.search(name):
            raise BadRequest("a channel's name has 1 to 255 bytes of UTF-8 and no control characters", field)
        key.require_channel(name)

    def _check_endpoint(self, endpoint: str | None, field: str) -> None:
        if endpoint is not None:
            try:
                self.hub.manager(endpoint)
            except ValueError as error:
                raise BadRequest(str(error), field) from None

    # -- looking

    def channels(self, key: Key, request: WebRequest) -> shapes.ChannelPage:
        """Channels in the order of their names, those that the key covers."""
        query = request.query
        limit = asked.limit(request, "channels")
        covered: list[shapes.ChannelEntry] = []
        after = query.get("after", "")
        page = self.hub.channels(query.get("prefix", ""), after, limit + 1)
        while page and len(covered) <= limit:
            covered += [shapes.ChannelEntry(*entry) for entry in page if key.covers(entry.name)]
            more = len(covered) <= limit < len(page)
            page = self.hub.channels(query.get("prefix", ""), page[-1].name, limit + 1) if more else []
        return shapes.ChannelPage(covered[:limit], covered[limit - 1].name if len(covered) > limit else None)

    def channel(self, key: Key, request: WebRequest) -> shapes.Members:
        """Who is in a channel."""
        name = request.params["name"]
        key.require_channel(name)
        state = self.hub.channel(name)
        if state is None:
            raise Reject(404, "nobody is in this channel")
        limit = asked.limit(request, "channel")
        users = [
            shapes.Member(plain(user), there.since.timestamp(), there.devices)
            for (user, there), _ in zip(state.users.items(), range(limit), strict=False)
        ]
        return shapes.Members(name, len(state.connections), users, len(state.users) - len(users))

    def user(self, key: Key, request: WebRequest) -> shapes.UserConnections:
        """A user's connections."""
        name = request.params["name"]
        connections = self.hub.user(name)
        if not connections and WHOLE.fullmatch(name):
            connections = self.hub.user(int(name))  # a path has texts alone
        if not connections:
            raise Reject(404, "this user is not connected")
        return shapes.UserConnections(name, [_facts(key, ws) for ws in connections])

    def connection(self, key: Key, request: WebRequest) -> shapes.ConnectionFacts:
        """A connection."""
        ws = self.hub.connection(request.params["id"])
        if ws is None:
            raise Reject(404, "there is no such connection")
        return _facts(key, ws)

    def last_refusals(self, key: Key, request: WebRequest) -> shapes.RefusalList:
        """The last refusals."""
        kept = self.refusals.last(asked.limit(request, "refusals"))
        return shapes.RefusalList([shapes.RefusalEntry(**entry) for entry in kept])

    def info(self, key: Key, request: WebRequest) -> shapes.Info:
        """The server, and what is on it."""
        endpoints = [
            shapes.EndpointInfo(manager.path, manager.connection_count, len(manager.channels), len(manager.users))
            for manager in self.hub.managers
        ]
        total = sum(endpoint.connections for endpoint in endpoints)
        return shapes.Info(__version__, self._started, self.hub.server.is_ready, total, endpoints)


# -- what is told


class Turn:
    """A long piece of work, which lets others have the loop after a few milliseconds each time."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()  # the loop's own clock stands still meanwhile

    async def may_end(self) -> None:
        """Between two steps of the work."""
        if time.perf_counter() - self._begin > TURN:
            await asyncio.sleep(0)
            self._begin = time.perf_counter()


class Failed:
    """Makes what a batch says of a command that failed. The log has the first of them, whose id they all bear."""

    def __init__(self, request: WebRequest) -> None:
        self._request = request
        self._request_id: str | None = None

    def __call__(self, status: int, message: str, error: Exception | None = None) -> shapes.Failure:
        if self._request_id is None or error is not None:
            about = facts(self._request.raw_path, self._request.headers)
            said: Any = refusal(self._request.peer, status, message, error=error, about=about).content
            self._request_id = said["error"]["request_id"]
        return shapes.Failure(shapes.Detail(status, message, str(self._request_id)))


async def settled(result: Any) -> Any:
    """Returns what a command came to, waiting for a store where it has to."""
    return await result if isawaitable(result) else result


def _same(failure: shapes.Failure) -> shapes.Failure:
    return failure


def plain(user: Hashable) -> shapes.User:
    """Returns a user as JSON has it: a text or a number."""
    return user if isinstance(user, str | int) and not isinstance(user, bool) else str(user)


def _facts(key: Key, ws: WebSocket) -> shapes.ConnectionFacts:
    return shapes.ConnectionFacts(
        ws.id,
        None if ws.user is None else plain(ws.user),
        ws.manager.path,
        ws.path,
        ws.remote_address[0],
        sorted(filter(key.covers, ws.channels)),
        getattr(ws, "since", None),
        getattr(ws, "pending", None),
    )
