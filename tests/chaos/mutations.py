"""Rules of the follower, each broken by hand: the oracle has to find every one of them."""

from fastws.cluster.follower import LogFollower

__all__ = ["MUTATIONS", "break_rule"]


def no_check_of_previous() -> None:
    """Whatever comes is taken, whether or not it continues what is known."""

    def on_records(self, previous, records):
        if self._kept is not None or self.cursor is None:
            self._keep(previous, records)
        else:
            self._take(records)

    LogFollower.on_records = on_records


def deliver_while_mending() -> None:
    """What comes while a gap is being mended does not wait."""
    checked = LogFollower.on_records

    def on_records(self, previous, records):
        if self._kept is not None and self.cursor is not None:
            self._take(records)
        else:
            checked(self, previous, records)

    LogFollower.on_records = on_records


def no_broken() -> None:
    """Who finds that the store has lost something keeps it to itself."""

    async def be_lost(self, cursor):
        await self._begin_anew("unknown")

    LogFollower._be_lost = be_lost


def no_tags() -> None:
    """Positions with one offset are one, in whatever life of the log."""
    after = LogFollower._after

    def without_tags(self, since):
        for record in self._ring:
            if record.position.offset == since.offset:
                since = record.position
        return after(self, since)

    def reconcile(self, top):
        if self.is_ready and top.offset != self.cursor.offset:
            self.mend()

    def on_records(self, previous, records):
        if self._kept is not None or self.cursor is None:
            self._keep(previous, records)
        elif previous.offset == self.cursor.offset:
            self._take(records)
        elif records[-1].position.offset > self.cursor.offset:
            self.mend()
            self._keep(previous, records)

    LogFollower._after, LogFollower.reconcile, LogFollower.on_records = without_tags, reconcile, on_records


def no_repair() -> None:
    """A gap is noticed, and passed over."""

    async def read_on(self, cursor):
        self.cursor = (await self._store.read(self.log, None, 0)).top

    LogFollower._read_on = read_on


MUTATIONS = {
    "previous": no_check_of_previous,
    "mending": deliver_while_mending,
    "broken": no_broken,
    "tags": no_tags,
    "repair": no_repair,
}


def break_rule(name: str) -> None:
    """Break one of `MUTATIONS` in this process."""
    MUTATIONS[name]()
