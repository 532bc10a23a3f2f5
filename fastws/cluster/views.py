"""What is true on all nodes together."""

from collections.abc import Hashable, Iterable
from typing import Any

from ..presence import EVERY_VIEWER, Presence, Stay, merged
from .directory import user_name
from .said import log_of, said_in

__all__ = ["Cluster"]


class Cluster:
    """The whole of an endpoint, as the store has it: `ConnectionManager.cluster`.

    Each call asks the store once, and raises BackplaneError where that does not answer.
    """

    def __init__(self, manager: Any) -> None:
        self._manager = manager  # a ConnectionManager; if there are other nodes, a ClusterManager

    async def presence(self, channel: str, *, viewer: Hashable = EVERY_VIEWER) -> dict[Hashable, Presence]:
        """Returns who is in a channel whose presence is kept, on any node, though nobody here may be in it.

        ``viewer`` is that of `ConnectionManager.presence`.
        """
        manager = self._manager
        crowds = getattr(manager, "crowds", None)
        if crowds is None:
            people: dict[Hashable, Presence] = manager.presence(channel, viewer=viewer)
            return people
        read = await crowds.node.store.snapshot(log_of(manager.path, channel))
        stays: dict[Hashable, Stay | None] = dict(manager.life.company.people.here(channel))
        for user, node, stay in said_in(read.records):
            if node != crowds.node.key and crowds.is_living(node):
                stays[user] = merged((stays.get(user), stay))
        return {
            user: Presence.at(*stay)
            for user, stay in stays.items()
            if stay is not None and (viewer is EVERY_VIEWER or manager.sees(viewer, user))
        }

    async def online(self, users: Iterable[Hashable]) -> dict[Hashable, int]:
        """Returns on how many nodes each of some users is; whoever is offline is left out."""
        manager = self._manager
        crowds = getattr(manager, "crowds", None)
        if crowds is None:
            return {user: 1 for user in users if user in manager.users}
        names = {user_name(manager.path, user): user for user in users}
        found = await crowds.node.directory.online(names)
        return {names[name]: number for name, number in found.items() if number}
