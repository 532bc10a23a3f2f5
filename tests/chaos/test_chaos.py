"""A short run of the oracle, and what it has to find: see tests/chaos."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastws.logs import Position

from ..lib.redis import PROGRAM
from .faults import LASTING, schedule
from .oracle import ChannelRecord, Story, Verdict, turns

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed")
def test_nothing_is_missed_or_twice_or_untrue_whatever_is_killed_stopped_and_cut_off():
    run = [sys.executable, "-m", "tests.chaos", "--seconds", "22", "--clients", "30", "--lease", "3", "--seed", "7"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_schedule_is_that_of_its_seed_and_has_everything():
    faults = schedule(60, 1, 3)
    assert faults == schedule(60, 1, 3) != schedule(60, 2, 3)
    assert {fault.kind for fault in faults} == LASTING.keys()


def heard(*events, is_lossy=False):
    """The faults that a story of these events has, in a record of 10 messages."""
    verdict = Verdict()
    record = ChannelRecord("room-0", verdict, is_lossy=is_lossy)
    for number in range(1, 11):
        record.tap(at(number), number)
    story = Story("ann", record)
    story.subscribed(str(at(0)), False, "new", 0)
    for event in events:
        if isinstance(event, int):
            story.message(str(at(event)), event)
        else:
            story.subscribed(str(at(event[0])), *event[1:])
    record.judge()
    return {kind for kind, found in verdict.faults.items() if found}


def at(number):
    return Position(number, 1000 + number)


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ([1, 2, 3], set()),
        ([1, 2, (4, True, None, 2), 3, 4, 5], set()),
        ([1, (1, True, None, 0), 2], set()),
        ([1, 3], {"missed"}),
        ([1, 2, 2], {"twice"}),
        ([1, 2, 3, 2], {"out of order"}),
        ([1, (4, True, None, 0), 5], {"untrue"}),
        ([1, (4, True, None, 3), 2, 3, 5], {"untrue", "missed"}),
        ([1, (4, True, None, 3), 2, (4, True, None, 2)], {"missed"}),
        ([1, (4, False, "trimmed", 0), 5], {"untrue"}),
        ([1, (4, False, "unknown", 0), 5], {"untrue"}),
    ],
)
def test_the_oracle_finds(events, kinds):
    assert heard(*events) == kinds


def test_the_oracle_finds_what_a_store_that_came_back_older_took_away():
    assert heard(1, is_lossy=True) == set()
    verdict = Verdict()
    record = ChannelRecord("room-0", verdict, is_lossy=True)
    record.tap(at(1), 1)
    record.tap(at(2), 2)  # lost
    record.tap(Position(2, 2000), 3)
    story = Story("ann", record)
    story.subscribed(str(at(1)), False, "new", 0)
    story.message(str(Position(2, 2000)), 3)
    record.judge()
    assert len(verdict.faults["missed"]) == 1


def test_the_oracle_finds_who_is_online_twice():
    calls = [("a", "online", "ann"), ("b", "online", "bob"), ("a", "offline", "ann"), ("b", "online", "ann")]
    assert turns(calls) == []
    assert len(turns([*calls, ("a", "online", "ann")])) == 1
