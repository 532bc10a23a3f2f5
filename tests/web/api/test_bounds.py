"""What is remembered is bounded: answers under idempotency keys, and refusals."""

import logging
import subprocess
import sys

from fastws.answers import refusal
from fastws.web import repeats
from fastws.web.refusals import Refusals
from fastws.web.repeats import Repeats


def test_an_answer_is_remembered_for_five_minutes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(repeats.time, "monotonic", lambda: now[0])
    answers = Repeats()
    assert answers.once("shop", "a", "k", lambda: 1) == answers.once("shop", "a", "k", lambda: 2) == 1
    assert answers.once("other", "a", "k", lambda: 7) == 7
    assert answers.once("shop", "b", "k", lambda: 3) == 3
    now[0] = 299.0
    assert answers.once("shop", "a", "k", lambda: 4) == 1
    now[0] = 301.0
    assert answers.once("shop", "a", "k", lambda: 5) == 5
    assert len(answers) == 1


def test_the_oldest_answers_go_first():
    answers = Repeats(most=3)
    for key in "abcd":
        answers.once("shop", "", key, lambda: 1)
    assert len(answers) == 3
    assert answers.once("shop", "", "d", lambda: 2) == 1
    assert answers.once("shop", "", "a", lambda: 2) == 2


def test_the_last_refusals_are_kept_the_latest_first():
    kept = Refusals(most=3)
    kept.install()
    try:
        for n in range(5):
            refusal(("10.0.0.1", 1), 403, f"no {n}", about={"path": "/x", "origin": None, "user_agent": "me"})
        logging.getLogger("fastws.server").warning("something else")
    finally:
        kept.remove()
    refusal(None, 403, "not heard of")
    assert [entry["message"] for entry in kept.last()] == ["no 4", "no 3", "no 2"]
    assert [entry["message"] for entry in kept.last(1)] == ["no 4"]
    entry = kept.last(1)[0]
    assert (entry["status"], entry["remote_address"], entry["path"], entry["user_agent"]) == (
        403,
        "10.0.0.1",
        "/x",
        "me",
    )


def test_warnings_still_reach_stderr_where_nobody_handles_logs():
    script = """
from fastws.answers import refusal
from fastws.web.refusals import Refusals
kept = Refusals()
kept.install()
refusal(None, 403, "not today")
assert len(kept.last()) == 1
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.count("not today") == 1
