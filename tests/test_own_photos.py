"""Four real photos, laid out as ``docs/your-own-photos.md`` says, with bodies boxed by hand: who gets which face?"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from emoface.cli import main
from emoface.vision.images import decode_photo

PAGE = Path(__file__).parents[1] / "docs" / "your-own-photos.md"

COLUMNS = (
    *("Index", "Folder", "Filename", "Image Size", "BBox"),
    *("Categorical_Labels", "Continuous_Labels", "Gender", "Age"),
)

IMAGE_WH = {"zidane.jpg": (1280, 720), "9.jpg": (1024, 768), "bus.jpg": (810, 1080), "1.jpg": (1024, 768)}


@dataclass(frozen=True)
class Boxed:
    """A person as boxed by hand.

    Attributes:
        photo: File name.
        who: For whoever reads a failure.
        body: Box of the visible body.
        face: Middle of the face as one sees it; None where no face can be seen.
    """

    photo: str
    who: str
    body: tuple[int, int, int, int]
    face: tuple[int, int] | None


PEOPLE = (
    Boxed("zidane.jpg", "shouts, his arm across the other", (122, 202, 1154, 720), (603, 344)),
    Boxed("zidane.jpg", "stands behind", (750, 42, 1110, 720), (984, 189)),
    Boxed("9.jpg", "back row left", (25, 94, 335, 510), (220, 209)),
    Boxed("9.jpg", "back row, long dark hair", (270, 70, 436, 310), (369, 167)),
    Boxed("9.jpg", "back row, striped shirt", (472, 66, 758, 460), (568, 193)),
    Boxed("9.jpg", "back row right", (690, 92, 842, 445), (757, 235)),
    Boxed("9.jpg", "front row left", (0, 288, 380, 768), (232, 419)),
    Boxed("9.jpg", "with glasses", (248, 200, 612, 768), (429, 350)),
    Boxed("9.jpg", "in white", (528, 262, 805, 768), (637, 397)),
    Boxed("9.jpg", "with a cup", (760, 228, 1024, 768), (896, 383)),
    Boxed("bus.jpg", "cream coat", (50, 398, 246, 902), (134, 443)),
    Boxed("bus.jpg", "black coat", (224, 405, 345, 860), (289, 446)),
    Boxed("bus.jpg", "an arm and a leg at the left border", (0, 550, 80, 872), None),
    Boxed("bus.jpg", "from behind, at the right border", (668, 392, 810, 880), None),
    Boxed("1.jpg", "far left", (0, 500, 112, 680), (67, 543)),
    Boxed("1.jpg", "second from the left", (105, 532, 205, 650), (157, 580)),
    Boxed("1.jpg", "dark suit", (205, 485, 342, 768), (270, 530)),
    Boxed("1.jpg", "brown jacket", (340, 512, 468, 768), (410, 557)),
    Boxed("1.jpg", "white hair", (460, 508, 622, 768), (537, 554)),
    Boxed("1.jpg", "red tie", (605, 462, 745, 768), (664, 503)),
    Boxed("1.jpg", "blue tie", (735, 448, 855, 768), (786, 496)),
    Boxed("1.jpg", "brooch", (850, 490, 1000, 735), (912, 531)),
    Boxed("1.jpg", "profile, lower right", (890, 602, 1024, 768), (944, 704)),
    Boxed("1.jpg", "back of a head, lower left", (0, 622, 232, 768), None),
)


@pytest.fixture(scope="module")
def work(shared_dir: Path, weights_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all four stages filled."""
    root = tmp_path_factory.mktemp("mine")
    photos = root / "emotic" / "mscoco" / "images"
    photos.mkdir(parents=True)
    for name in IMAGE_WH:
        shutil.copy(shared_dir / "photos" / name, photos)
    with (root / "train.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for index, one in enumerate(PEOPLE):
            size, box = list(IMAGE_WH[one.photo]), list(one.body)
            labels = ["Engagement"] if one.face else ["Disconnection"]
            writer.writerow(
                [index, "mscoco/images", one.photo, size, box, labels, [5, 5, 5], "Male", "Adult"],
            )
    (line,) = re.findall(r"^emoface run .*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    words = shlex.split(line.replace("mine-work", str(root / "out")).replace("=mine", f"={root}"))
    answer = CliRunner(env={"EMOFACE_WEIGHTS": str(weights_dir)}).invoke(main, words[1:])
    assert answer.exit_code == 0, answer.stderr
    return root / "out"


def test_everybody_gets_their_own_face_and_nobody_anothers(work: Path) -> None:
    rows = pq.read_table(work / "faces.parquet").to_pylist()
    assert len(rows) == len(PEOPLE)
    for row, one in zip(rows, PEOPLE, strict=True):
        assert row["person_id"].startswith(f"mscoco/images/{one.photo}#"), one.who
        if one.face is None:
            assert row["face_status"] == "no_face" and row["face_bbox"] is None, one.who
        else:
            assert row["face_status"] == "found", one.who
            x1, y1, x2, y2 = row["face_bbox"]
            size = max(x2 - x1, y2 - y1)
            middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
            assert np.abs(middle - one.face).max() < 0.15 * size, f"{one.who}: {middle}"
            assert row["conf"] >= 0.5


def test_crops_show_the_whole_face(work: Path) -> None:
    for row in pq.read_table(work / "faces.parquet").to_pylist():
        if row["face"] is not None:
            height, width = decode_photo(row["face"]["bytes"], row["person_id"]).shape[:2]
            x1, y1, x2, y2 = row["face_bbox"]
            assert height == width
            assert width == pytest.approx(1.3 * max(x2 - x1, y2 - y1), abs=2)


def test_the_empties_are_listed_with_their_reason(work: Path) -> None:
    empty = pd.read_csv(work / "empty_faces.csv")
    assert empty["index"].tolist() == [index for index, one in enumerate(PEOPLE) if one.face is None]
    assert set(empty["face_status"]) == {"no_face"}


def test_split_and_report_count_what_was_found(work: Path) -> None:
    manifest = json.loads((work / "manifest.json").read_text())
    assert sum(split["rows"] for split in manifest["splits"].values()) == len(PEOPLE)
    assert sum(split["photos"] for split in manifest["splits"].values()) == len(IMAGE_WH)
    assert sum(split["faces"] for split in manifest["splits"].values()) == sum(one.face is not None for one in PEOPLE)
    assert (work / "report" / "audit.html").stat().st_size > 10_000
