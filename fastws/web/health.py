"""`/healthz` and `/readyz`: whether the loop turns, and whether clients should come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..answers import NO_STORE_HEADERS, Answer
from ..server import Server

if TYPE_CHECKING:
    from ..hooks.posting import Figures

__all__ = ["ALIVE", "READY", "add_to"]

ALIVE = "/healthz"
READY = "/readyz"


def add_to(server: Server, figures: Figures | None = None) -> None:
    """Have a server answer both, also while it is full.

    `/healthz` is 200 as long as the loop turns, whatever a backend does: a restart would only add a storm. `/readyz`
    is 200 while the server accepts connections; with ``figures`` of hooks, while their backend answers, too.
    """

    def ready() -> Answer:
        return Answer.readiness(server.is_ready and (figures is None or figures.is_reachable))

    server.pages[ALIVE] = lambda: Answer(200, {"status": "ok"}, NO_STORE_HEADERS)
    server.pages[READY] = ready
