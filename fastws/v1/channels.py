"""Channels of fastws.v1: who joins and leaves them, and what those who come back have missed."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Mapping
from typing import Any

import orjson

from .._core import Endpoint, WebSocket
from ..access.rules import ChannelRule, Rules
from ..logs import Position
from . import frames
from .decisions import Refused
from .frames import valid_channel
from .gate import Backend, Gate, obey

__all__ = ["Channels"]

logger = logging.getLogger("fastws.v1")


class Channels(Gate):
    """Has connections join channels and leave them, and tells them of it."""

    def __init__(self, rules: Rules, *, backend: Backend | None, anonymous: bool, max_channels: int) -> None:
        super().__init__(rules, backend=backend, anonymous=anonymous)
        self.max_channels = max_channels
        self._watched: set[str] = set()  # channels with presence
        self._told: set[tuple[WebSocket, str]] = set()  # who need not be told by the handlers: joins and leaves
        self._tasks: set[asyncio.Future[None]] = set()  # joins that the server began and that wait for a log

    # -- joining

    def _subscribe(self, ws: WebSocket, frame: frames.Subscribe) -> Awaitable[None] | None:
        channel = valid_channel(frame.channel)
        if channel in ws.channels:
            if ws.manager.keeps(channel):
                return self._resume(ws, frame, {}, None)
            self._tell_subscribed(ws, channel, self.subscribers(channel), {}, frame.id)
            return None
        rule = self.check(ws, "subscribe", channel)
        self._check_room(ws, rule, channel)
        if self.asks("subscribe"):
            return self._ask_subscribe(ws, frame, rule)
        return self._join(ws, frame, {}, rule)

    async def _ask_subscribe(self, ws: WebSocket, frame: frames.Subscribe, rule: ChannelRule) -> None:
        assert self.backend is not None
        answer = await self.backend.subscribe(ws, frame.channel)
        self._check_room(ws, rule, frame.channel)  # others may have come meanwhile
        later = self._join(ws, frame, answer, rule)
        if later is not None:
            await later
        obey(ws, answer)

    def _check_room(self, ws: WebSocket, rule: ChannelRule, channel: str) -> None:
        if len(ws.channels) >= self.max_channels:
            raise Refused("too_many", self._full())
        self.check_room(rule, channel)

    def _full(self) -> str:
        return f"a connection can be in {self.max_channels} channels"

    def _join(
        self, ws: WebSocket, frame: frames.Subscribe, answer: Mapping[str, Any], rule: ChannelRule | None
    ) -> Awaitable[None] | None:
        """Be in a channel, at once unless there is something to wait for: its log, or what other nodes say."""
        if ws.manager.keeps(frame.channel):
            return self._resume(ws, frame, answer, rule)
        listening = ws.manager.listening(frame.channel)
        if listening is not None:
            return self._join_after(listening, ws, frame, answer, rule)
        self._enter(ws, frame, answer, None)
        return None

    async def _join_after(
        self,
        listening: asyncio.Future[None],
        ws: WebSocket,
        frame: frames.Subscribe,
        answer: Mapping[str, Any],
        rule: ChannelRule | None,
    ) -> None:
        await asyncio.shield(listening)
        if rule is not None and ws.is_open:
            self._check_room(ws, rule, frame.channel)
        self._enter(ws, frame, answer, None)

    async def _resume(
        self, ws: WebSocket, frame: frames.Subscribe, answer: Mapping[str, Any], rule: ChannelRule | None
    ) -> None:
        """Be in a channel that has a log, and get what was missed."""
        manager: Any = ws.manager  # a ClusterManager
        missed = await manager.catch_up(frame.channel, frame.position, lambda: ws.is_open)
        if missed is None:
            return
        if rule is not None and frame.channel not in ws.channels:
            self._check_room(ws, rule, frame.channel)
        self._enter(ws, frame, answer, missed)  # in the turn in which that was true

    def _enter(self, ws: WebSocket, frame: frames.Subscribe, answer: Mapping[str, Any], missed: Any) -> None:
        """The client is told first, so that neither a message nor a list of who is there comes before."""
        channel = frame.channel
        is_new = channel not in ws.channels
        if not ws.is_open or (missed is None and not is_new):
            return
        self._tell_subscribed(ws, channel, self.subscribers(channel) + is_new, answer, frame.id, missed)
        if not is_new:
            return
        rule = self.rules.find(channel)
        self._told.add((ws, channel))  # until on_subscribe
        if answer.get("presence", rule is not None and rule.presence):
            self._watched.add(channel)
            ws.manager.watch_presence(channel)
        ws.subscribe(channel)

    def _tell_subscribed(
        self,
        ws: WebSocket,
        channel: str,
        subscribers: int,
        answer: Mapping[str, Any],
        id: frames.Id,
        missed: Any = None,
    ) -> None:
        frame = {"type": "subscribed", "channel": channel, "subscribers": subscribers, **self._state(channel, missed)}
        if id is not None:
            frame["id"] = id
        if "message" in answer:
            frame["message"] = answer["message"]
        ws.send(frame)
        if missed is not None:
            manager: Any = ws.manager  # a ClusterManager
            manager.send_missed(channel, ws, missed)

    def _state(self, channel: str, missed: Any) -> dict[str, Any]:
        """What `subscribed` says of a channel's log."""
        if missed is None:
            return {"log": None, "position": None, "recovered": False, "reason": "new", "count": 0}
        state = {
            "log": self.manager.keeps(channel),
            "position": str(missed.position),
            "recovered": missed.recovered,
            "count": len(missed.records),
        }
        if missed.reason is not None:
            state["reason"] = missed.reason
        if missed.is_snapshot:
            state["snapshot"] = True
        return state

    # -- what a ClusterManager asks for channels with logs

    def placed(self, channel: str, message: str | None, position: Position, key: str | None) -> str:
        """Returns an envelope as members get it, with its place in the log; None stands for a key that was deleted."""
        place = f'"position":"{position}"' if key is None else f'"position":"{position}","key":{quoted(key)}'
        if message is None:
            return f'{{"type":"message","channel":{quoted(channel)},{place},"deleted":true}}'
        return f"{message[:-1]},{place}}}"

    def contents(self, message: str) -> Any:
        """Returns what an envelope holds."""
        envelope = orjson.loads(message)
        return base64.b64decode(envelope["base64"]) if "base64" in envelope else envelope["message"]

    def log_begun(self, channel: str, missed: Any, to: WebSocket | None = None) -> None:
        """Tell the members, or one, that the log's thread was lost, that it was cleared, or what is in it now."""
        manager: Any = self.manager
        state = self._state(channel, missed)
        told = {"type": "subscribed", "channel": channel, "subscribers": self.subscribers(channel), **state}
        for message in (told, *manager.messages(channel, missed.records)):
            Endpoint.broadcast(manager, channel, message, to=to)

    def on_subscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection is in a channel; the client has to know, whoever wanted it."""
        super().on_subscribe(ws, channel, subscribers)
        if (ws, channel) in self._told:
            self._told.discard((ws, channel))
        elif ws.manager.keeps(channel):
            self._in_background(self._resume(ws, frames.Subscribe(channel=channel), {}, None))
        else:
            self._tell_subscribed(ws, channel, self.subscribers(channel), {}, None)

    def _in_background(self, rest: Awaitable[None] | None) -> None:
        """What the server began, and no frame waits for."""
        if rest is not None:
            task = asyncio.ensure_future(rest)
            self._tasks.add(task)
            task.add_done_callback(self._is_done)

    def _is_done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a channel could not be joined", exc_info=task.exception())

    def _unsubscribe(self, ws: WebSocket, frame: frames.Unsubscribe) -> None:
        channel = self._own(ws, frame)
        answer = {"type": "unsubscribed", "channel": channel, "reason": "asked"}
        self._told.add((ws, channel))
        ws.unsubscribe(channel)
        ws.send(answer if frame.id is None else answer | {"id": frame.id})

    def on_unsubscribe(self, ws: WebSocket, channel: str, subscribers: int) -> Any:
        """A connection has left a channel; one that is still there has to know."""
        super().on_unsubscribe(ws, channel, subscribers)
        if (ws, channel) in self._told:
            self._told.discard((ws, channel))
        elif ws.is_open:
            ws.send({"type": "unsubscribed", "channel": channel, "reason": "kicked"})

    def on_channel_close(self, channel: str) -> Any:
        """Nobody is left to be told who is there."""
        super().on_channel_close(channel)
        if channel in self._watched:
            self._watched.discard(channel)
            self.manager.unwatch_presence(channel)

    def _own(self, ws: WebSocket, frame: Any) -> str:
        """The channel that a frame is about, and its sender is in."""
        channel = valid_channel(frame.channel)
        if channel not in ws.channels:
            raise Refused("not_a_member", "this needs a subscription to the channel")
        return channel


def quoted(text: str) -> str:
    """Returns a text as JSON."""
    return orjson.dumps(text).decode()
