"""Times parse at EMOTIC's full size, and checks that both annotation formats give the same table.

    python docs/benchmarks/parse_full_size.py ROWS --work DIR

ROWS is a folder of ``train.csv``, ``val.csv`` and ``test.csv``. Their photos are repeated under other names until there
are 34,320 people, val and test people get five and three annotators, and an ``Annotations.mat`` is written of them.
Each parse runs in a separate process, so that its memory can be measured: without photos; with a small JPEG for every
photo, so that all headers are read; and with the unchanged rows, as CSV and as .mat, whose tables must be the same
except for people of emodb_small, whose boxes are not clipped by the doubtful size in the CSV files.
The column "seconds" is wall time, which includes other load of the machine; "seconds of work" is CPU time.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
from PIL import Image

from emoface.emotic import PhotoAnnotation, find_annotations, read_annotations, write_annotations_mat
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.schema import PEOPLE_SCHEMA
from emoface.storage.cards import read_card
from emoface.storage.tables import read_table

N_ANNOTATORS = {"train": 1, "val": 5, "test": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--one", nargs=2, type=Path, metavar=("ROOT", "OUT"), help="Used by each separate process.")
    options = parser.parse_args()
    if options.one:
        parse_one(*options.one)
        return
    rows = read_annotations(find_annotations(options.rows))
    write_annotations_mat(options.work / "same" / "Annotations.mat", rows)
    photos = grow(rows, read_card("emotic")["published"]["people"])
    for name in ("bare", "photos"):
        write_annotations_mat(options.work / name / "Annotations.mat", photos)
    write_photos(options.work / "photos" / "emotic", photos)
    print("| run | people | photos | seconds | seconds of work | peak memory, MiB |\n|---|---:|---:|---:|---:|---:|")
    for title, root, out in (
        (".mat, no photos", options.work / "bare", "bare-out"),
        (".mat, a header per photo", options.work / "photos", "photos-out"),
        ("rows as .mat", options.work / "same", "same-out"),
        ("rows as CSV", options.rows, "rows-out"),
    ):
        command = [sys.executable, __file__, str(options.rows), "--work", str(options.work)]
        process = subprocess.run(
            [*command, "--one", str(root), str(options.work / out)], capture_output=True, text=True, check=True
        )
        found = json.loads(process.stdout)
        figures = [f"{found[name]:,}" for name in ("people", "photos")]
        figures += [f"{found['seconds']:.1f}", f"{found['work_seconds']:.1f}", f"{found['peak_mib']:.0f}"]
        print(f"| {' | '.join([title, *figures])} |")
    from_mat, from_csv = (
        read_table(options.work / out / "people.parquet", PEOPLE_SCHEMA, "") for out in ("same-out", "rows-out")
    )
    is_sized = pc.not_equal(from_csv["source"], "emodb_small")
    print(f"\nboth forms give the same table: {from_mat.filter(is_sized).equals(from_csv.filter(is_sized))}")


def parse_one(root: Path, out: Path) -> None:
    start = time.perf_counter()
    record = run_parse(ParseConfig(emotic_root=root, out=out))
    seconds = {"seconds": time.perf_counter() - start, "work_seconds": time.process_time()}
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = {name: record.counts[name] for name in ("people", "photos")}
    print(json.dumps({**counts, **seconds, "peak_mib": peak_mib}))


def grow(rows: list[PhotoAnnotation], n_people: int) -> list[PhotoAnnotation]:
    """Repeats photos under other names until there are ``n_people`` people, and adds annotators to val and test."""
    photos = list(rows)
    missing = n_people - sum(len(photo.people) for photo in photos)
    for number, photo in enumerate(rows):
        if missing <= 0:
            break
        people = photo.people[:missing]
        missing -= len(people)
        photos.append(dataclasses.replace(photo, filename=f"again_{number}_{photo.filename}", people=people))
    return [
        dataclasses.replace(
            photo,
            people=tuple(
                dataclasses.replace(
                    person,
                    annotator_categories=(person.categories,) * N_ANNOTATORS[photo.source_split],
                    annotator_vad=(person.vad,) * N_ANNOTATORS[photo.source_split],
                )
                for person in photo.people
            ),
        )
        for photo in photos
    ]


def write_photos(image_root: Path, photos: list[PhotoAnnotation]) -> None:
    """Writes a grey JPEG of the annotated size for every photo; each size is encoded once."""
    encoded: dict[tuple[int, int], bytes] = {}
    for photo in photos:
        wh = photo.image_wh or (1, 1)
        if wh not in encoded:
            stream = io.BytesIO()
            Image.new("L", wh, 128).save(stream, "JPEG", quality=20)
            encoded[wh] = stream.getvalue()
        path = image_root / photo.image
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded[wh])


if __name__ == "__main__":
    main()
