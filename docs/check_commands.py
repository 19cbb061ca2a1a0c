"""Runs what the documentation tells a new user to run, line by line, in an environment made by its own install line.

    python docs/check_commands.py

A copy of the tracked files is made in an empty folder. There the commands and Python programs of the pages run in their
order on a simulated EMOTIC, in one shell that stops at the first line that fails. Lines that fetch weights are left out
where ``EMOFACE_WEIGHTS`` names a folder that has them. Needs the package registry; takes some minutes.
``tests/test_docs.py`` checks in seconds that all commands of all pages exist.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).parents[1]
PAGES = ("docs/tutorial.md", "docs/for-curators.md")
"""Pages whose commands need no torch; the first one begins with the installation."""
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def render_script(texts: Sequence[str], has_weights: bool) -> str:
    """Renders one shell script of the blocks of pages, with a simulated EMOTIC after the first one.

    Args:
        texts: Content of the pages, the first of which installs emoface in its first block.
        has_weights: Whether weights are there, so that lines that fetch them are left out.
    """
    blocks = [block for text in texts for block in _BLOCK.findall(text)]
    parts = ["set -ex"]
    for number, (language, code) in enumerate(blocks):
        if language == "python":
            parts.append(f"python - <<'END_OF_PROGRAM'\n{code}END_OF_PROGRAM")
        else:
            lines = code.splitlines()
            parts += [line for line in lines if not (has_weights and line.startswith("emoface weights fetch"))]
        if number == 0:
            parts.append("emoface simulate EMOTIC --images 40")
    return "\n".join(parts) + "\n"


def main() -> None:
    """Copies the tracked files to an empty folder and runs the script there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    texts = [(REPO / page).read_text(encoding="utf-8") for page in PAGES]
    script = render_script(texts, has_weights="EMOFACE_WEIGHTS" in os.environ)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with tempfile.TemporaryDirectory() as folder:
        copy = ["git", "-C", str(REPO), "checkout-index", "--all", f"--prefix={folder}/"]
        subprocess.run(copy, check=True)
        environment["EMOFACE_CACHE"] = f"{folder}/cache"
        raise SystemExit(subprocess.run(["bash", "-c", script], cwd=folder, env=environment).returncode)


if __name__ == "__main__":
    main()
