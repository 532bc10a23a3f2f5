"""Servers in this process that are one, each with a link to their store that can be cut."""

import asyncio
from contextlib import AsyncExitStack

from fastws import Server
from fastws.backplane.memory import Memory, MemoryStore
from fastws.errors import BackplaneError
from fastws.testing import running

from .support import Recorder, Site

LEASE = 0.6
ASKING = ("beat", "broken", "buried", "bury", "claim", "clear", "find", "holdings", "leave", "read")
ASKING = (*ASKING, "release", "snapshot", "tops")


class Login(Recorder):
    """Users by the query string: /ws/cars?user=ann; a number is an int."""

    def on_handshake(self, request):
        super().on_handshake(request)
        user = request.query.get("user")
        request.user = int(user) if user and user.isdigit() else user

    def on_backplane(self, connected):
        self.note("on_backplane", connected)


class Link(Memory):
    """The store in memory, by a link that may be cut: then everything fails, or (frozen) waits."""

    def __init__(self, store, *, is_connected=True):
        super().__init__(store)
        self.is_frozen, self.is_connected = False, is_connected
        self._thawed = asyncio.Event()
        self._receiving, self._following = {}, {}
        for name in ASKING:
            setattr(self, name, self._asking(getattr(self, name)))

    def _asking(self, call):
        async def ask(*arguments, **options):
            await self._pass()
            return await call(*arguments, **options)

        return ask

    async def _pass(self):
        if self.is_frozen:
            try:
                await asyncio.wait_for(self._thawed.wait(), self._timeout)
            except TimeoutError:
                raise BackplaneError("the store does not answer") from None
        if not self.is_connected:
            raise BackplaneError("the store is away")

    async def start(self, node, observer, **options):
        self._observer, self._timeout, self._node = observer, options["timeout"], node
        if self.is_connected:
            observer.on_connected()

    def send(self, subject, payload):
        if self.is_connected and not self.is_frozen:
            super().send(subject, payload)

    def append(self, log, payload, **options):
        async def later():
            await self._pass()
            return await Memory.append(self, log, payload, **options)

        if self.is_connected and not self.is_frozen:
            return super().append(log, payload, **options)
        return asyncio.ensure_future(later())

    async def listen(self, receivers):
        if not self.is_connected:
            self._listened.update(receivers)
            self._receiving.update(receivers)
            raise BackplaneError("the store is away")
        await super().listen(receivers)

    async def follow(self, followers):
        if not self.is_connected:
            self._followed.update(followers)
            self._following.update({(log.endpoint, log.name): each for log, each in followers.items()})
            raise BackplaneError("the store is away")
        await super().follow(followers)

    def _silence(self):
        """Nothing arrives any more."""
        receivers, followers = self.store._receivers, self.store._followers
        self._receiving = {subject: receivers[subject].pop(self) for subject in self._listened}
        places = {(log.endpoint, log.name) for log in self._followed}
        self._following = {place: followers[place].pop(self) for place in places}

    def _hear_again(self):
        for subject, receive in self._receiving.items():
            self.store._receivers.setdefault(subject, {})[self] = receive
        for place, follower in self._following.items():
            self.store._followers.setdefault(place, {})[self] = follower

    def cut(self):
        self.is_connected = False
        self._silence()
        self._observer.on_disconnected("cut")

    def mend(self):
        self.is_connected = True
        self._hear_again()
        self._observer.on_connected()

    def freeze(self):
        self.is_frozen = True
        self._silence()

    def thaw(self):
        self.is_frozen = False
        self._hear_again()
        self._thawed.set()
        self._observer.on_connected()


class Fleet:
    """``make()`` is the backplane of one more node, `await fleet.start()` one more server."""

    def __init__(self, make, prefix, lease=LEASE):
        self.make = make
        self.common = {"prefix": prefix, "lease": lease, "handover": lease, "backplane_timeout": 2}
        self.sites = []
        self._servers = {}

    @classmethod
    def in_memory(cls):
        store = MemoryStore()
        return cls(lambda: Link(store), "test")

    def server(self, **options) -> Server:
        """One more server, not yet started."""
        return Server(port=0, backplane=self.make(), **{**self.common, **options})

    async def start(self, listener=None, path="/ws/{channel}", shared=(), **options) -> Site:
        """One more server; `site.manager.listener` records what it is called with."""
        server = self.server(**options)
        for name in shared:
            server.shared(name)
        manager = server.endpoint(path, Login() if listener is None else listener)
        stack = AsyncExitStack()
        site = Site(server, manager, await stack.enter_async_context(running(server)))
        self.sites.append(site)
        self._servers[site.url] = stack
        return site

    async def three(self, **options):
        """Three servers that know each other."""
        sites = [await self.start(**options) for _ in range(3)]
        await asyncio.gather(*[site.server._node.members.beat() for site in sites])
        return sites

    async def end(self, site):
        """A server stops, as at a deploy."""
        await self._servers.pop(site.url).aclose()

    def kill(self, site):
        """A server is gone without a word, as after a SIGKILL; its process keeps the memory."""
        link(site).cut()
        node = site.server._node
        for task in list(node._tasks):
            task.cancel()

    async def stop(self):
        while self._servers:
            await self._servers.popitem()[1].aclose()


def stored(site, name, endpoint="/ws/{channel}"):
    """A log, as the store in memory has it."""
    return link(site).store._logs.get((endpoint, name))


def lose(site, name, endpoint="/ws/{channel}"):
    """The store in memory forgets a log, as one that comes back empty does."""
    del link(site).store._logs[endpoint, name]


def link(site) -> Link:
    return site.server.options.backplane


def calls(sites, *names):
    """What the listeners of all sites were called with, of some handlers, as (handler, arguments...)."""
    return [call for site in sites for call in site.manager.listener.calls if call[0] in names]


def online(sites):
    """How often each user was said to be online, less how often offline."""
    balance = {}
    for name, user in calls(sites, "on_user_online", "on_user_offline"):
        balance[user] = balance.get(user, 0) + (1 if name == "on_user_online" else -1)
    return balance
