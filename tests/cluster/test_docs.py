"""docs/logs.md: its program prints what the page says."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "logs.md"


def test_the_program_prints_what_the_page_says():
    (program,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    lines = printed.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert f"`{line}`" in PAGE.read_text()
