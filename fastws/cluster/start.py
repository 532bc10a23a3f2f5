"""How a server gets its node."""

from collections.abc import Iterable

from ..backplane.base import Backplane
from ..backplane.memory import Memory
from ..config import Options
from ..manager import ConnectionManager
from .manager import ClusterManager
from .node import Node

__all__ = ["start_node", "take_over"]


def take_over(manager: ConnectionManager) -> None:
    """Make a `ConnectionManager` a `ClusterManager`, which applications may hold already."""
    if type(manager) is ConnectionManager:
        manager.__class__ = ClusterManager


async def start_node(id: str, address: str, options: Options, managers: Iterable[ConnectionManager]) -> Node:
    """Returns the node of a server that starts, with a store of its own where there is no backplane."""
    node = Node(id, _store(options.backplane), options, is_alone=options.backplane is None, address=address)
    for manager in managers:
        if isinstance(manager, ClusterManager):
            manager.join(node)
            node.managers.append(manager)
    await node.start()
    return node


def _store(backplane: Backplane | str | None) -> Backplane:
    if backplane is None:
        return Memory()
    if isinstance(backplane, str):
        from ..backplane import from_url

        return from_url(backplane)
    return backplane
