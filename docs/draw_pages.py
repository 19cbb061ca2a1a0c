"""Draws the pictures of the documentation, ``docs/images/*.webp``, from pages of simulated people.

    emoface demo --out demo-out
    emoface train --manifest demo-out/manifest.json --model task1 --preset modern --epochs 3 --person-size 64 \\
        --pretrained none --batch-size 16 --learning-rate 0.002 --out demo-out/task1
    emoface evaluate demo-out/task1
    emoface compare demo-out/run demo-out/task1 --out demo-out/comparison
    emoface predict demo-out/run demo-out/EMOTIC/emotic/mscoco/images/COCO_sim_000000000311.jpg \\
        --manifest demo-out/manifest.json --out demo-out/predict
    emoface explain demo-out/run --index 357 --out demo-out/explain
    python docs/draw_pages.py demo-out

Needs Chromium. No photo of EMOTIC may be in these pictures: its licence does not allow it.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES_DIR = Path(__file__).with_name("images")
MAX_BYTES = 150_000
"""Largest size of one picture."""
_SHOWN_PATH = "demo-out"
"""What pages call the folder of the demo, whatever its path is."""


@dataclass(frozen=True)
class Picture:
    """One picture of the documentation.

    Attributes:
        name: Name of the file in ``docs/images``.
        source: A page or a picture in the folder of the demo.
        shown: CSS selectors of the parts of the page that are shown; of a picture nothing.
        height: Height in pixels after which a page is cut; None shows all of it.
        hidden: CSS selectors of what is left out of these parts.
    """

    name: str
    source: str
    shown: tuple[str, ...] = ()
    height: int | None = None
    hidden: tuple[str, ...] = ()


PICTURES = (
    Picture("audit.webp", "report/audit.html", ("header", "#labels"), 1180),
    Picture("audit-splits.webp", "report/audit.html", ("#splits",), 900),
    Picture("audit-together.webp", "report/audit.html", ("#together",)),
    Picture("audit-faces.webp", "report/audit.html", ("#faces",), 1100, ("#faces > :not(h3):not(.sheet)",)),
    Picture("evaluation.webp", "run/eval/test/evaluation.html", ("header", "#metrics", "#labels"), 1350),
    Picture("comparison.webp", "comparison/comparison.html", ("header", "#runs", "#differences", "#training")),
    Picture("label-histogram.webp", "report/label_histogram.png"),
    Picture("average-precision.webp", "run/eval/test/average_precision.png"),
    Picture("precision-recall.webp", "run/eval/test/precision_recall.png"),
    Picture("prediction.webp", "predict/COCO_sim_000000000311.png"),
    Picture("explanation.webp", "explain/person-000357_engagement_context.png"),
)


def draw_page(demo_dir: Path, picture: Picture, chromium: str) -> Image.Image:
    """Draws parts of a page at a width of 1,280 pixels, without the margin below them."""
    page = demo_dir / picture.source
    steps = (
        ("header, main > *, footer", "none"),
        (", ".join(picture.shown), "revert"),
        (", ".join(picture.hidden), "none"),
    )
    style = " ".join(f"{selectors} {{ display: {display} }}" for selectors, display in steps if selectors)
    text = page.read_text(encoding="utf-8").replace(str(demo_dir.resolve()), _SHOWN_PATH)
    with tempfile.TemporaryDirectory() as folder:
        copy, target = Path(folder) / "page.html", Path(folder) / "page.png"
        copy.write_text(text.replace("</head>", f"<style>{style}</style></head>"), encoding="utf-8")
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,4000")
        call = [chromium, *options, f"--screenshot={target}", copy.as_uri()]
        subprocess.run(call, check=True, capture_output=True, timeout=120)
        pixels = np.asarray(Image.open(target).convert("RGB"))
    rows = np.flatnonzero((pixels != pixels[-1, 0]).any(axis=(1, 2)))
    bottom = int(rows[-1]) + 20 if rows.size else len(pixels)
    return Image.fromarray(pixels[: min(bottom, picture.height or bottom)])


def encode(image: Image.Image) -> bytes:
    """Encodes a picture as WebP of at most ``MAX_BYTES``."""
    image = image.convert("RGB")
    image.thumbnail((1280, 2000))
    for quality in (80, 65, 50, 35):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def main() -> None:
    """Draws all pictures whose source is there, and names the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="the folder that 'emoface demo' wrote")
    parser.add_argument("--chromium", default="chromium", help="the program")
    arguments = parser.parse_args()
    IMAGES_DIR.mkdir(exist_ok=True)
    for picture in PICTURES:
        source = arguments.demo / picture.source
        if not source.is_file():
            print(f"{picture.name}: {source} is missing, left as it was")
            continue
        image = draw_page(arguments.demo, picture, arguments.chromium) if picture.shown else Image.open(source)
        data = encode(image)
        (IMAGES_DIR / picture.name).write_bytes(data)
        print(f"{picture.name}: {image.size[0]} x {image.size[1]}, {len(data):,} bytes")


if __name__ == "__main__":
    main()
