"""What is true of a run: the record of the store, and what each client says of itself."""

from collections.abc import Iterable
from typing import Any

from fastws.logs import Position

from .node import BUSY_SIZE, SIZE

__all__ = ["ChannelRecord", "Story", "Verdict"]

KINDS = ("missed", "twice", "out of order", "untrue", "lost", "zombies", "presence", "turns", "other")
RESUME_LIMIT = 1000
MOST_SHOWN = 5  # faults of each kind


class Verdict:
    """The faults of a run, by kind."""

    def __init__(self) -> None:
        self.faults: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, text: str) -> None:
        self.faults[kind].append(text)

    @property
    def count(self) -> int:
        return sum(map(len, self.faults.values()))

    def lines(self) -> list[str]:
        """What to print: of each kind how many, and some."""
        counts = ", ".join(f"{len(found)} {kind}" for kind, found in self.faults.items())
        return [counts, *(f"{kind}: {text}" for kind, found in self.faults.items() for text in found[:MOST_SHOWN])]


class ChannelRecord:
    """All that was ever in a channel's log, whoever saw it: a tap, the clients, the publishers."""

    def __init__(self, name: str, verdict: Verdict, *, is_lossy: bool) -> None:
        self.name = name
        self.size = BUSY_SIZE if name.startswith("busy") else SIZE
        self.is_lossy = is_lossy
        self.verdict = verdict
        self.stored: dict[Position, int] = {}  # by the tap: which message is where
        self.heard: dict[Position, int] = {}  # by clients
        self.acknowledged: dict[int, Position] = {}  # by publishers
        self.top = Position(0, 0)
        self.links: dict[tuple[Position, Position], Story] = {}  # two that came one after the other, first to whom

    def tap(self, position: Position, number: int) -> None:
        self.top = position
        if self.stored.setdefault(position, number) != number:
            self.verdict.add("other", f"{self.name}: two messages are stored at {position}")

    def hear(self, before: Position, position: Position, number: int, story: "Story") -> None:
        self.links.setdefault((before, position), story)
        if self.heard.setdefault(position, number) != number:
            self.verdict.add("other", f"{self.name}: {story.name} got {number} at {position}, another one did not")

    def judge(self) -> None:
        """After the end: compare all that is known."""
        add = self.verdict.add
        numbers: dict[int, Position] = {}
        for position, number in self.stored.items():
            if number in numbers and not self.is_lossy:
                add("twice", f"{self.name}: {number} is stored at {numbers[number]} and {position}")
            numbers[number] = position
        for number, position in self.acknowledged.items():
            if not self.is_lossy and self.stored.get(position) != number:
                add("lost", f"{self.name}: {number} was acknowledged at {position}, where the store has it not")
        for position, number in self.heard.items():
            if not self.is_lossy and self.stored.get(position) != number:
                add("other", f"{self.name}: {number} came from {position}, where the store has it not")
        self._judge_links()

    def _judge_links(self) -> None:
        """Whoever was told nothing between two messages has missed none. Tags are times, so they order all lives."""
        everything = {*self.stored, *self.heard, *self.acknowledged.values()}
        order = sorted(everything, key=lambda position: (position.tag, position.offset))
        ranks = {position: rank for rank, position in enumerate(order)}
        for (before, after), story in self.links.items():
            first = ranks.get(before)
            if first is None:  # the end of a log that begins anew
                first = sum(position.tag <= before.tag for position in order) - 1
            missing = ranks[after] - first - 1
            if missing > 0 and not (self.is_lossy and story.was_told_after(after)):
                self.verdict.add("missed", f"{self.name}: {story.name} got {before}, then {after}: {missing} between")


class Story:
    """What one client hears of one channel, checked as it comes."""

    def __init__(self, name: str, record: ChannelRecord) -> None:
        self.name = name
        self.record = record
        self.cursor: Position | None = None
        self.heard = 0
        self.recovered = 0
        self.told: list[tuple[str, Position]] = []  # what was not recovered: reasons and positions
        self._due: tuple[int, Position] | None = None  # messages that `subscribed` announced, and the end of them

    def subscribed(self, position: str, recovered: bool, reason: str | None, count: int) -> None:
        top = Position.parse(position)
        if self._due is not None:
            self._fault("missed", f"{self._due[0]} were announced, and did not come")
        self._due = None
        if recovered:
            self._recovered(top, count)
        else:
            self._lost_thread(top, reason)

    def _recovered(self, top: Position, count: int) -> None:
        self.recovered += 1
        if self.cursor is None or (count == 0 and top != self.cursor) or top.offset - self.cursor.offset != count:
            self._fault("untrue", f"recovered with {count} up to {top}")
            self.cursor = top
        elif count:
            self._due = count, top

    def _lost_thread(self, top: Position, reason: str | None) -> None:
        gap = top.offset - (self.cursor.offset if self.cursor else 0)
        is_true = {
            "new": self.cursor is None,
            "trimmed": gap >= self.record.size,
            "gap": gap >= self.record.size,
            "too_many": gap > RESUME_LIMIT,
            "unknown": False,
        }.get(str(reason), False)
        if not is_true and not self.record.is_lossy:
            self._fault("untrue", f"not recovered, {reason}, at {top}")
        if self.cursor is not None:
            self.told.append((str(reason), top))
        self.cursor = top

    def message(self, position: str, number: int) -> None:
        place = Position.parse(position)
        self.heard += 1
        if self.cursor is None:
            self._fault("other", f"{place} before it was told where it is")
        elif place.offset == self.cursor.offset:
            self._fault("twice", f"{place}")
        elif place.offset < self.cursor.offset:
            self._fault("out of order", f"{place}")
        else:
            if place.offset > self.cursor.offset + 1:
                self._fault("missed", f"{place.offset - self.cursor.offset - 1} before {place}")
            self.record.hear(self.cursor, place, number, self)
        self.cursor = place
        if self._due is not None:
            count, top = self._due
            self._due = (count - 1, top) if count > 1 else None
            if self._due is None and place != top:
                self._fault("untrue", f"the last of what was missed is {place}, not {top}")

    def was_told_after(self, position: Position) -> bool:
        return any(top.tag > position.tag for _, top in self.told)

    def _fault(self, kind: str, text: str) -> None:
        self.record.verdict.add(kind, f"{self.record.name}: {self.name}, who is at {self.cursor}: {text}")


def turns(calls: Iterable[tuple[str, str, Any]]) -> list[str]:
    """Users who were online or offline twice in a row, over all nodes.

    Of one whom a node took for online alone, without the store, nothing is known until the next call.
    """
    last: dict[Any, tuple[str, str]] = {}
    found = []
    for node, what, user in calls:
        if what == "alone":
            last.pop(user, None)
            continue
        if user in last and last[user][1] == what:
            found.append(f"{user} is {what} on {node}, as on {last[user][0]} before")
        last[user] = node, what
    return found
