"""How a server gets its node."""

import asyncio
import logging
from collections.abc import Iterable

from ..backplane.base import Backplane
from ..backplane.memory import Memory
from ..config import Options
from ..manager import ConnectionManager
from .manager import ClusterManager
from .node import Node
from .shared import SharedDict

__all__ = ["share", "start_node", "take_over"]

logger = logging.getLogger("fastws.cluster")


def take_over(manager: ConnectionManager) -> None:
    """Make a `ConnectionManager` a `ClusterManager`, which applications may hold already."""
    if type(manager) is ConnectionManager:
        manager.__class__ = ClusterManager


def share(name: str, node: Node | None) -> SharedDict:
    """Returns a new dict that is shared with other nodes; ``node``: that of a server that runs."""
    shared = SharedDict(name)
    if node is not None:
        shared.join(node)
        node.managers.append(shared)
    return shared


async def start_node(
    id: str, address: str, options: Options, managers: Iterable[ConnectionManager], shared: Iterable[SharedDict]
) -> Node:
    """Returns the node of a server that starts, with a store of its own where there is no backplane."""
    node = Node(id, _store(options.backplane), options, is_alone=options.backplane is None, address=address)
    for manager in managers:
        if isinstance(manager, ClusterManager):
            manager.join(node)
            node.managers.append(manager)
    await node.start()
    for manager in managers:
        if isinstance(manager, ClusterManager):
            manager.begin()
    await _begin_to_share(node, list(shared))
    return node


async def _begin_to_share(node: Node, shared: list[SharedDict]) -> None:
    """Have the values that other nodes have set, before anybody connects who may depend on them."""
    for each in shared:
        each.join(node)
        node.managers.append(each)
    if shared:
        try:
            async with asyncio.timeout(node.options.backplane_timeout):
                await asyncio.gather(*(each.ready() for each in shared))
        except TimeoutError:
            logger.warning("the values of shared dicts are not known yet: the backplane does not answer")


def _store(backplane: Backplane | str | None) -> Backplane:
    if backplane is None:
        return Memory()
    if isinstance(backplane, str):
        from ..backplane import from_url

        return from_url(backplane)
    return backplane
