"""The short form of ``kill_anywhere.py``: a pipeline run killed twice must end as an unbroken one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_anywhere.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks the processes that it kills")
def test_run_that_is_killed_twice_ends_as_an_unbroken_one() -> None:
    short = ("--times", "2", "--seed", "0", "--epochs", "1", "--images", "12", "--chain")
    answer = subprocess.run([sys.executable, str(SCRIPT), *short], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "2 kills of " in answer.stdout and answer.stdout.endswith("; 0 faults\n"), answer.stdout
