"""The pages in headless Chromium: axe-core finds nothing that keeps people with a keyboard or a screen reader out."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.jobs.compare import CompareConfig, run_compare
from emoface.jobs.evaluate import EvaluateConfig, run_evaluate
from emoface.jobs.report import ReportConfig, run_report

AXE = os.environ.get("EMOFACE_AXE", "")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
PAGES = ("report/audit.html", "runs/0/eval/test/evaluation.html", "runs/comparison/comparison.html")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN_AXE = """
axe.run(document, {resultTypes: ['violations'], runOnly: RULES}).then(found => {
  const places = one => one.nodes.map(node => node.target.join(' '));
  const text = JSON.stringify(found.violations.map(one => [one.id, one.help, places(one)]));
  document.body.innerHTML = '<pre id="found"></pre>';
  document.getElementById('found').textContent = text;
});
"""

pytestmark = [
    pytest.mark.skipif(not Path(AXE).is_file(), reason="EMOFACE_AXE does not name axe-core's axe.min.js"),
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with its three kinds of pages."""
    manifest = write_photos_and_tables(tmp_path_factory.mktemp("pages"), 12)
    folder = manifest.parent
    runs = [write_finished_run(manifest.parent / f"runs/{seed}", manifest, "task3", seed=seed) for seed in (0, 1)]
    for run in runs:
        run_evaluate(EvaluateConfig(run=run, device="cpu", draws=20))
    run_compare(CompareConfig(runs=tuple(runs), draws=20))
    run_report(ReportConfig(dir=folder))
    return folder


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_violation(folder: Path, page: str, width: int, tmp_path: Path) -> None:
    text = (folder / page).read_text(encoding="utf-8")
    axe = Path(AXE).read_text(encoding="utf-8")
    scripts = f"<script>{axe}</script><script>{RUN_AXE.replace('RULES', json.dumps(RULES))}</script></body>"
    copy = tmp_path / "page.html"
    copy.write_text(text.replace("</body>", scripts), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", copy.as_uri()]
    dom = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None, "axe-core did not end"
    assert json.loads(html.unescape(found[1])) == []
