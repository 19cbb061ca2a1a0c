"""Audits EMOTIC's real rows: parses annotations without their photos and reports on the labels.

    python docs/benchmarks/audit_emotic.py ANNOTATIONS --out DIR

ANNOTATIONS is the released ``Annotations.mat``, or a folder of ``train.csv``, ``val.csv`` and ``test.csv``. Prints a
Markdown table of label counts and the label balance metrics; the page is ``DIR/report/audit.html``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.report import ReportConfig, run_report

METRICS = ("label_cardinality", "label_density", "mean_imbalance_ratio", "imbalance_ratio_cv", "scumble")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    folder = options.annotations if options.annotations.is_dir() else options.annotations.parent
    run_parse(ParseConfig(emotic_root=folder, out=options.out, annotations=options.annotations))
    start = time.perf_counter()
    run_report(ReportConfig(dir=options.out))
    seconds = time.perf_counter() - start

    audit = json.loads((options.out / "report" / "audit.json").read_text(encoding="utf-8"))
    labels = audit["labels"]["before"]
    print("| label | people | share | IRLbl |\n|---|---:|---:|---:|")
    for name, count in sorted(labels["label_counts"].items(), key=lambda item: -item[1]):
        print(f"| {name} | {count:,} | {labels['label_shares'][name]:.1%} | {labels['imbalance_ratios'][name]:.1f} |")
    print(f"\n{labels['people']:,} people, {audit['people']['photos']:,} photos")
    for metric in METRICS:
        print(f"{metric}: {labels[metric]:.4f}")
    print(f"report: {seconds:.1f} s")


if __name__ == "__main__":
    main()
