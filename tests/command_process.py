"""Runs many command lines in one new process, whose imports are paid for once: each would take up to four seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
import json, os, sys, tempfile, traceback
from emoface.cli import main

def run(words):
    outputs = [tempfile.TemporaryFile() for _ in range(2)]
    saved = [os.dup(1), os.dup(2)]
    for output, descriptor in zip(outputs, (1, 2)):
        os.dup2(output.fileno(), descriptor)
    code = 0
    try:
        main(words, prog_name="emoface")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, kept in zip((1, 2), saved):
            os.dup2(kept, descriptor)
            os.close(kept)
    texts = []
    for output in outputs:
        output.seek(0)
        texts.append(output.read().decode("utf-8", "surrogateescape"))
    return [code, *texts]

results = [run(words) for words in json.load(sys.stdin)]
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Ended:
    """How a command line ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_commands(
    calls: Sequence[Sequence[object]], cwd: Path | None = None, preexec_fn: Callable[[], None] | None = None
) -> list[Ended]:
    """Runs command lines of emoface one after the other, with the standard output and error of a real process.

    Args:
        calls: The words of each command line without ``emoface``.
        cwd: The folder of the process.
        preexec_fn: Called in the new process before it starts.
    """
    ended = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        input=json.dumps([list(map(str, words)) for words in calls]),
        capture_output=True,
        text=True,
        cwd=cwd,
        preexec_fn=preexec_fn,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [Ended(*one) for one in json.loads(ended.stdout)]
