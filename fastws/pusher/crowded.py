"""What the channels of a server have in common with those of other nodes, where there are any."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._core import Endpoint
from ..cluster.node import Node
from ..cluster.people import Crowds
from ..manager import ConnectionManager
from ..presence import Stay

__all__ = ["Crowded"]


class Crowded(ABC):
    """Has `Crowds` from the server's start to its stop, and is who these ask and tell; without other nodes, none."""

    def __init__(self) -> None:
        self._crowds: Crowds | None = None
        self._manager: ConnectionManager | None = None

    def _meet(
        self,
        manager: ConnectionManager,
        endpoint: str,
        globs: Iterable[str],
        on_written: Callable[[str, Any, bool], None] | None = None,
    ) -> None:
        """The server starts. ``endpoint`` is whose channels these are, for other nodes."""
        self._manager = manager
        node: Node | None = getattr(manager, "node", None)
        if node is None or node.is_alone:
            return
        life = manager.life
        self._crowds = Crowds(
            node, endpoint, self, self, globs=globs, is_stopping=lambda: life.is_stopping, on_written=on_written
        )
        self._crowds.begin()
        node.managers.append(self)

    @property
    def endpoint(self) -> Endpoint:
        """Whose channels these are."""
        assert self._manager is not None
        return self._manager

    def on_backplane(self, is_connected: bool) -> None:
        """The store is there (again), or gone."""
        if self._crowds is not None:
            self._crowds.on_backplane(is_connected)

    def part(self) -> None:
        """The server has stopped."""
        if self._crowds is not None:
            self._crowds.stop()
            self._crowds = None

    # -- what `Crowds` asks and tells

    @abstractmethod
    def here(self, channel: str) -> Mapping[Any, Stay]:
        """Returns who is in a channel on this node."""

    @abstractmethod
    def stay_here(self, channel: str, user: Any) -> Stay | None:
        """Returns the same of one user."""

    @abstractmethod
    def update(self, channel: str, user: Any) -> None:
        """Somebody came or went on another node."""

    @abstractmethod
    def settle(self, channel: str) -> None:
        """It is known again who is in a channel."""
