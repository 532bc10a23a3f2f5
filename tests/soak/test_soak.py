"""A short soak test: see tests/soak."""

import subprocess
import sys
from pathlib import Path

from ..lib.support import needs_proc

ROOT = Path(__file__).parent.parent.parent


@needs_proc
def test_a_crowd_that_comes_and_goes_leaves_nothing_and_loses_nothing():
    soak = [sys.executable, "-m", "tests.soak", "--seconds", "10", "--clients", "300"]
    done = subprocess.run(soak, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "; 0 faults" in done.stdout
