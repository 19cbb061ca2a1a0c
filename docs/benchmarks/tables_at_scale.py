"""Measures how time and memory of the table jobs grow, from EMOTIC's 34,320 people to 100 times as many.

    python docs/benchmarks/tables_at_scale.py --work DIR [--times 1 3 10] [--draws 20] [--out docs]

Annotations, face crops and predictions are generated: photos of one to six people, labels as unevenly frequent as
EMOTIC's, one photo in ninety of train listed again in val, one box in fifty beyond its photo. There are no photos, so
reading them is not measured. Each stage runs in a process of its own: ``parse`` reads CSV files (at EMOTIC's size also
``Annotations.mat``), ``merge faces`` is the part of ``faces`` that merges finished shards into one table, ``split``,
``report`` and ``score``, the part of ``evaluate`` that measures predictions. It prints a Markdown table and, with
``--out``, writes ``scale.json`` and the chart ``scale.svg``. The exponent of growth is the slope of processor time and
of peak memory over the number of people, both as logarithms, of the three largest sizes; 1 is linear.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from emoface.datasets.manifest import read_manifest
from emoface.emotic import find_annotations, read_annotations, write_annotations_mat
from emoface.emotic.csv_files import COLUMNS
from emoface.jobs import faces as faces_job
from emoface.jobs.faces import FacesConfig, list_photos
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.report import ReportConfig, run_report
from emoface.jobs.score import ScoreConfig, run_score
from emoface.jobs.split import SplitConfig, run_split
from emoface.prefetch import in_batches
from emoface.reporting.charts import SERIES_COLORS
from emoface.schema import CATEGORIES, FACE_FOUND, N_CATEGORIES, PEOPLE_SCHEMA, SPLIT_SCHEMA
from emoface.storage.cards import read_card
from emoface.storage.records import finish_job
from emoface.storage.shards import ShardFolder
from emoface.storage.tables import open_table, read_table, vectors_to_array

PREVALENCE = np.geomspace(0.55, 0.01, N_CATEGORIES)
PEOPLE_IN_PHOTO = (0.72, 0.17, 0.06, 0.03, 0.01, 0.01)
"""Shares of photos of one to six people; 1.47 people on average, as in EMOTIC."""
SHARE_WITH_FACE = 0.75
CROP_SIDE, N_CROPS = 48, 20_000
WIDTH, HEIGHT = 640, 480
EVERY_LISTED_AGAIN = 90
SHARDS = "shards"
QUANTITIES = (("processor seconds", "work_seconds", ",.1f"), ("peak memory, MiB", "peak_mib", ",.0f"))
STAGES = ("parse .mat", "parse", "merge faces", "split", "report", "score")


def generate_annotations(root: Path, n_people: int) -> None:
    """Writes ``train.csv``, ``val.csv`` and ``test.csv``, a photo at a time."""
    random = np.random.default_rng(0)
    shares = read_card("emotic")["published"]["split_shares"]
    root.mkdir(parents=True, exist_ok=True)
    again: list[list[list[Any]]] = []
    number = 0
    for split in ("train", "test", "val"):
        left = round(shares[split] * n_people) - (sum(map(len, again)) if split == "val" else 0)
        with (root / f"{split}.csv").open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(COLUMNS)
            if split == "val":
                for photo in again:
                    rows.writerows(photo)
            while left > 0:
                number += 1
                photo = generate_photo(random, number, left)
                rows.writerows(photo)
                left -= len(photo)
                if split == "train" and number % EVERY_LISTED_AGAIN == 0:
                    again.append(photo)


def generate_photo(random: np.random.Generator, number: int, most: int) -> list[list[Any]]:
    """The rows of one photo's people in the CSV form."""
    people = []
    for person in range(min(most, 1 + int(random.choice(len(PEOPLE_IN_PHOTO), p=PEOPLE_IN_PHOTO)))):
        x1, y1, width, height = random.integers((0, 0, 40, 80), (500, 300, 140, 180)).tolist()
        x2 = x1 + width + (WIDTH if random.random() < 0.02 else 0)
        names = [CATEGORIES[k] for k in np.flatnonzero(random.random(N_CATEGORIES) < PREVALENCE)] or [CATEGORIES[0]]
        vad = [float(value) for value in random.integers(1, 11, 3)]
        people.append(
            [
                *(person, "mscoco/images", f"photo_{number:09d}.jpg", [WIDTH, HEIGHT], [x1, y1, x2, y1 + height]),
                *(names, vad, ("Male", "Female")[int(random.integers(2))], ("Kid", "Adult")[int(random.integers(2))]),
            ]
        )
    return people


def generate_mat(root: Path, mat_root: Path) -> None:
    """Writes the annotations of the CSV files as ``Annotations.mat``."""
    write_annotations_mat(mat_root / "Annotations.mat", read_annotations(find_annotations(root)))


def generate_shards(data: Path) -> None:
    """Writes the finished shards of the faces job, with crops that are noise, so that they do not compress."""
    random = np.random.default_rng(1)
    crops = [encode_noise(random) for _ in range(N_CROPS)]
    shards = ShardFolder(data / SHARDS, faces_job._FacesSummary)
    for number, shard in enumerate(list_shards(read_people(data))):
        rows = []
        for row, person_id in (
            (row, one) for photo in shard for row, one in zip(photo.rows, photo.person_ids, strict=True)
        ):
            has_face = random.random() < SHARE_WITH_FACE
            x, y, side = random.integers((0, 0, 20), (500, 300, 90)).tolist()
            face = {"bytes": crops[int(random.integers(N_CROPS))], "path": f"{person_id}.jpg"}
            rows.append(
                {
                    "index": int(row),
                    "person_id": person_id,
                    "face": face if has_face else None,
                    "face_bbox": [x, y, x + side, y + side] if has_face else None,
                    "landmarks": [float(x + side / 2)] * 10 if has_face else None,
                    "conf": float(random.random()) if has_face else None,
                    "assignment_margin": float(5 * random.random()) if has_face else None,
                    "face_status": FACE_FOUND if has_face else "no_face",
                }
            )
        faces_job._store_shard(shards, number, rows, photo_digest="", counts={}, unreadable={})


def encode_noise(random: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    pixels = random.integers(0, 256, (CROP_SIDE, CROP_SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=60)
    return stream.getvalue()


def generate_predictions(data: Path) -> None:
    """Writes probabilities for val and test that know a little of the labels."""
    random = np.random.default_rng(2)
    manifest = read_manifest(data / "manifest.json")
    for split in ("val", "test"):
        with (
            open_table(manifest.split_path(split), SPLIT_SCHEMA, "") as table,
            pq.ParquetWriter(
                data / f"scores_{split}.parquet",
                pa.schema([("person_id", pa.string()), *((name, pa.float32()) for name in CATEGORIES)]),
            ) as writer,
        ):
            for batch in table.read_batches(10_000, ["person_id", "labels"]):
                labels = vectors_to_array(batch["labels"], N_CATEGORIES)
                scores = 1 / (1 + np.exp(-random.normal(size=labels.shape) - labels)).astype(np.float32)
                writer.write_table(pa.table([batch["person_id"], *scores.T], schema=writer.schema))


def merge_faces(data: Path) -> None:
    """Merges the shards as the faces job does once all of them are finished."""
    people = read_people(data)
    tables = [data / "faces.parquet", data / "empty_faces.csv"]
    shards = list_shards(people)
    faces_job._merge_shards(tables[0], ShardFolder(data / SHARDS, faces_job._FacesSummary), shards)
    statuses = faces_job._write_empty_faces(data, people)
    finish_job(
        "faces",
        FacesConfig(dir=data),
        data,
        module=faces_job.__name__,
        inputs={},
        outputs=tables,
        counts={"people": people.num_rows, "face_status": statuses},
        info={"detector": "generated"},
    )


def read_people(data: Path) -> pa.Table:
    columns = ["index", "person_id", "image", "image_wh", "body_bbox", "same_person_as"]
    return read_table(data / "people.parquet", PEOPLE_SCHEMA, "", columns)


def list_shards(people: pa.Table) -> list[list[faces_job.AnnotatedPhoto]]:
    return list(in_batches(list_photos(people), FacesConfig.model_fields["shard_size"].default))


def list_steps(work: Path, n_people: int, n_draws: int) -> dict[str, Callable[[], Any]]:
    """Everything that runs in a process of its own, in order, by name."""
    root, data = work / "annotations", work / "data"
    return {
        "generate annotations": lambda: generate_annotations(root, n_people),
        "generate .mat": lambda: generate_mat(root, work / "mat"),
        "parse .mat": lambda: run_parse(ParseConfig(emotic_root=work / "mat", out=work / "from_mat")),
        "parse": lambda: run_parse(ParseConfig(emotic_root=root, out=data)),
        "generate shards": lambda: generate_shards(data),
        "merge faces": lambda: merge_faces(data),
        "split": lambda: run_split(SplitConfig(dir=data)),
        "report": lambda: run_report(ReportConfig(dir=data)),
        "generate predictions": lambda: generate_predictions(data),
        "score": lambda: run_score(
            ScoreConfig(
                file=data / "scores_test.parquet",
                val=data / "scores_val.parquet",
                manifest=data / "manifest.json",
                draws=n_draws,
            )
        ),
    }


def measure(options: argparse.Namespace, times: int) -> Iterator[dict[str, Any]]:
    """Runs all stages at one size and yields the figures of each."""
    work = options.work / f"x{times}"
    shutil.rmtree(work, ignore_errors=True)
    for name in list_steps(work, 0, options.draws):
        if name.endswith(".mat") and times > 1:
            continue
        command = [sys.executable, __file__, "--work", str(work), "--times", str(times), "--draws", str(options.draws)]
        start = time.perf_counter()
        process = subprocess.Popen([*command, "--step", name])
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{name} at {times} times: exit code {process.returncode}")
        figures = {
            "times": times,
            "stage": name,
            "seconds": round(time.perf_counter() - start, 2),
            "work_seconds": round(used.ru_utime + used.ru_stime, 2),
            "peak_mib": round(used.ru_maxrss / 1024),
        }
        print(f"{figures}", file=sys.stderr, flush=True)
        if name in STAGES:
            yield figures
    people = pq.read_metadata(work / "data" / "people.parquet").num_rows
    crops = pq.read_metadata(work / "data" / "faces.parquet")
    uncompressed = sum(crops.row_group(n).total_byte_size for n in range(crops.num_row_groups))
    print(f"{times} times: {people:,} people, faces.parquet {uncompressed / 2**20:,.0f} MiB", file=sys.stderr)
    if not options.keep:
        shutil.rmtree(work)


def fit_exponents(figures: Iterable[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The exponents of growth of processor time and of peak memory by stage, over the three largest sizes."""
    of_stage: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in sorted(figures, key=lambda one: one["times"]):
        of_stage[one["stage"]].append(one)
    return {
        stage: {
            name: round(
                float(np.polyfit(*(np.log([one[key] for one in rows[-3:]]) for key in ("times", name)), 1)[0]), 2
            )
            for name in ("work_seconds", "peak_mib")
        }
        for stage, rows in of_stage.items()
        if len(rows) > 1
    }


def print_table(figures: list[dict[str, Any]], exponents: dict[str, dict[str, float]]) -> None:
    sizes = sorted({one["times"] for one in figures})
    n_people = read_card("emotic")["published"]["people"]
    found = {(one["stage"], one["times"]): one for one in figures}
    for title, name, form in QUANTITIES:
        print(f"\n| {title} | {' | '.join(f'{n_people * times:,}' for times in sizes)} | exponent |")
        print(f"|---|{'---:|' * (len(sizes) + 1)}")
        for stage in STAGES:
            cells = [format(found[stage, n][name], form) if (stage, n) in found else "" for n in sizes]
            print(f"| {stage} | {' | '.join(cells)} | {exponents.get(stage, {}).get(name, '')} |")


def draw(path: Path, figures: list[dict[str, Any]]) -> None:
    """Draws time and memory over people on logarithmic axes, with a dotted line of linear growth."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "emoface", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8.6, 3.6), layout="constrained")
        n_people = read_card("emotic")["published"]["people"]
        for panel, (title, name) in zip(
            figure.subplots(1, 2),
            (("processor seconds", "work_seconds"), ("peak memory, MiB", "peak_mib")),
            strict=True,
        ):
            for stage, color in zip(STAGES[1:], SERIES_COLORS, strict=False):
                rows = sorted((one["times"], one[name]) for one in figures if one["stage"] == stage)
                x, y = n_people * np.array([row[0] for row in rows]), [row[1] for row in rows]
                panel.loglog(x, y, marker="o", markersize=3, linewidth=1.4, color=color, label=stage)
            ends, (low, _) = np.array(panel.get_xlim()), panel.get_ylim()
            panel.loglog(
                ends, 1.3 * low * ends / ends[0], color="#7b8794", linewidth=0.9, linestyle=":", label="linear"
            )
            panel.set(xlabel="people", title=title)
            panel.set_xticks(x, [f"{value:,}" for value in x.tolist()], rotation=20)
            panel.yaxis.set_major_formatter("{x:,g}")
            panel.minorticks_off()
            panel.set_yticks([value * 10**power for power in range(5) for value in (1, 2, 3, 5)])
            panel.set_ylim(low, 1.1 * max(one[name] for one in figures))
            panel.grid(color="#e4e7eb", linewidth=0.7)
            panel.spines[:].set_visible(False)
        panel.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="Folder for generated files, 2 GB per 500,000 people.")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 3, 10], help="Sizes, in times of EMOTIC's people.")
    parser.add_argument("--draws", type=int, default=20, help="Bootstrap resamples of score.")
    parser.add_argument("--out", type=Path, help="Folder for scale.json and scale.svg.")
    parser.add_argument("--keep", action="store_true", help="Keep the generated files.")
    parser.add_argument("--step", help="Used by each separate process.")
    options = parser.parse_args()
    if options.step:
        n_people = options.times[0] * read_card("emotic")["published"]["people"]
        list_steps(options.work, n_people, options.draws)[options.step]()
        return
    figures: list[dict[str, Any]] = []
    for times in sorted(options.times):
        figures += measure(options, times)
        exponents = fit_exponents(figures)
        if options.out:
            result = {"draws": options.draws, "figures": figures, "exponents": exponents}
            (options.out / "scale.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            draw(options.out / "scale.svg", figures)
    print_table(figures, exponents)


if __name__ == "__main__":
    main()
