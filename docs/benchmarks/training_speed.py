"""Measures how fast MTER trains, against two loops over a torch ``DataLoader``, and how fast its loader is alone.

    python docs/benchmarks/training_speed.py [--manifest DIR/manifest.json] [--steps 12] [--device auto]

Without a manifest it draws a small data set first. Each of these runs in a process of its own, with the same people,
network, batch size, device, precision and number of reading threads or processes:

- loader: emoface reads the stored squares of each person into batches and brings them to the device;
- loader and augmentation: the same, and crops, mirroring, colours and normalisation there;
- emoface: the epochs of ``emoface train``;
- arrays: as in the training loop of Tandon-A/emotic, all inputs are in memory as arrays, and per person and input PIL
  mirrors, changes brightness, contrast and saturation by up to 0.4, converts and normalises; written anew after it;
- JPEG: per person the photo is decoded, and body and photo are cropped and scaled by PIL, and the face crop likewise.

Prints a Markdown table of people per second, processor time per person, both relative to JPEG, and on a GPU how busy
it was and how long an epoch of the 24,000 people of EMOTIC would take. Processor time depends little on what else the
machine does; people per second are worth something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import open_stream_cache
from emoface.jobs.faces import FacesConfig, run_faces
from emoface.jobs.parse import ParseConfig, run_parse
from emoface.jobs.simulate import SimulateConfig, run_simulate
from emoface.jobs.split import SplitConfig, run_split
from emoface.jobs.train import build_fabric
from emoface.learning.compiling import check_compiler
from emoface.learning.devices import pick_device
from emoface.mter import build_model
from emoface.mter.base import Mter
from emoface.mter.dataset import PeopleDataset, PersonBatch, iterate_training_batches, move_ahead
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAMS
from emoface.mter.recipe import Recipe, resolve_recipe
from emoface.mter.sampling import plan_batches
from emoface.mter.trainer import RecipeLoss, SplitPeople, Trainer, build_recipe_optimizer
from emoface.prefetch import count_usable_cpus
from emoface.storage.weights import DEMONSTRATION_DETECTOR

MEASURED = {
    "loader": "loader",
    "augmented": "loader and augmentation",
    "emoface": "emoface train",
    "arrays": "arrays in memory, PIL",
    "jpeg": "JPEG files, PIL",
}
SIZES = {"128/224": {"face": 128, "body": 128, "context": 224}, "64/112": {"face": 64, "body": 64, "context": 112}}
N_EMOTIC = 24_000
_JITTER = 0.4
_GPU_WARMUP_STEPS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--manifest", type=Path, help="data set; by default one is drawn")
    parser.add_argument("--model", default="mter2")
    parser.add_argument("--images", type=int, default=120, help="number of photos to draw")
    parser.add_argument("--steps", type=int, default=12, help="training steps that are measured")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=min(8, max(1, count_usable_cpus() - 1)))
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--precision", default="32", choices=("32", "bf16"))
    parser.add_argument("--compile", action="store_true", help="compile the network of emoface with torch.compile")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--measure", choices=tuple(MEASURED), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options, SIZES[options.sizes[0]])))
        return
    with tempfile.TemporaryDirectory() as folder:
        manifest = options.manifest or draw_data(Path(folder), options.images)
        print(describe_machine(options) + "\n")
        print("| loop | px | people/s | processor ms/person | people/s : JPEG | ms : JPEG | GPU busy | 24,000 people |")
        print("|---|---|---:|---:|---:|---:|---:|---:|")
        for sizes in options.sizes:
            found = {name: run_alone(name, sizes, manifest) for name in MEASURED}
            for name, one in found.items():
                print(to_row(name, sizes, one, found["jpeg"]), flush=True)


def draw_data(folder: Path, n_images: int) -> Path:
    """Draws a simulated EMOTIC_Face; returns the path of its manifest."""
    run_simulate(SimulateConfig(out=folder / "EMOTIC", images=n_images))
    run_parse(ParseConfig(emotic_root=folder / "EMOTIC", out=folder / "data"))
    run_faces(FacesConfig(dir=folder / "data", detector=DEMONSTRATION_DETECTOR))
    run_split(SplitConfig(dir=folder / "data"))
    return folder / "data" / "manifest.json"


def describe_machine(options: argparse.Namespace) -> str:
    device = pick_device(options.device)
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{count_usable_cpus()} CPU cores"
    return (
        f"{options.model}, batches of {options.batch_size}, precision {options.precision}"
        f"{', compiled' if options.compile else ''}, {options.workers} reading threads or processes; {place}, torch "
        f"{torch.__version__}"
    )


def run_alone(name: str, sizes: str, manifest: Path) -> dict[str, Any]:
    """Measures one loop in a process of its own."""
    call = [sys.executable, __file__, *sys.argv[1:], "--manifest", str(manifest), "--measure", name, "--sizes", sizes]
    ended = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return measured


def to_row(name: str, sizes: str, one: dict[str, Any], reference: dict[str, Any]) -> str:
    rate, cpu = one["people"] / one["seconds"], 1000 * one["cpu_seconds"] / one["people"]
    reference_rate = reference["people"] / reference["seconds"]
    reference_cpu = 1000 * reference["cpu_seconds"] / reference["people"]
    busy = "-" if one["gpu_busy"] is None else f"{one['gpu_busy']:.0f} %"
    return (
        f"| {MEASURED[name]} | {sizes} | {rate:,.1f} | {cpu:,.1f} | {rate / reference_rate:.2f} x | "
        f"{cpu / reference_cpu:.2f} x | {busy} | {N_EMOTIC / rate:,.0f} s |"
    )


# Measuring


def measure(options: argparse.Namespace, sizes: dict[str, int]) -> dict[str, Any]:
    """Measures one loop: people, seconds, processor time of this process and its children, and how busy the GPU was."""
    torch.set_num_threads(count_usable_cpus())
    torch.manual_seed(0)
    manifest = read_manifest(options.manifest)
    setting = Setting(options, pick_device(options.device), manifest, sizes)
    n_warmup = _GPU_WARMUP_STEPS if setting.device.type == "cuda" else 1
    loops: dict[str, Callable[[Setting], Callable[[int], None]]] = {
        "loader": lambda one: build_loader_loop(one, augments=False),
        "augmented": lambda one: build_loader_loop(one, augments=True),
        "emoface": build_emoface_loop,
        "arrays": lambda one: build_plain_loop(one, ArrayPeople.load(one)),
        "jpeg": lambda one: build_plain_loop(one, JpegPeople.load(one)),
    }
    run = loops[options.measure](setting)
    run(n_warmup)
    with watch_gpu(setting.device) as busy:
        start, cpu_start = time.perf_counter(), _processor_seconds()
        run(options.steps)
        if setting.device.type == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - start, _processor_seconds() - cpu_start
    return {
        "people": options.steps * options.batch_size,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "gpu_busy": statistics.mean(busy) if busy else None,
    }


def _processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def watch_gpu(device: torch.device) -> Iterator[list[float]]:
    """Asks nvidia-smi five times per second how busy the GPU is; the list is filled at the end of the block."""
    busy: list[float] = []
    if device.type != "cuda" or not shutil.which("nvidia-smi"):
        yield busy
        return
    call = ["nvidia-smi", "-i", str(device.index or 0), "--query-gpu=utilization.gpu"]
    call += ["--format=csv,noheader,nounits", "-lms", "200"]
    watching = subprocess.Popen(call, stdout=subprocess.PIPE, text=True)
    try:
        yield busy
    finally:
        watching.terminate()
        output, _ = watching.communicate()
        busy += [float(line) for line in output.split() if line.replace(".", "").isdigit()]


@dataclass(frozen=True)
class Setting:
    """What all loops share."""

    options: argparse.Namespace
    device: torch.device
    manifest: Manifest
    sizes: dict[str, int]

    @property
    def recipe(self) -> Recipe:
        return resolve_recipe("thesis", {"batch_size": self.options.batch_size})

    def build_model(self) -> Mter:
        model: Mter = build_model(self.options.model)
        return model.train()

    def positions(self, n_steps: int, n_people: int) -> np.ndarray:
        """Positions of the people of so many steps, each person as often as needed."""
        return np.resize(np.random.default_rng(0).permutation(n_people), n_steps * self.options.batch_size)


# emoface


def open_people(setting: Setting) -> PeopleDataset:
    cache = open_stream_cache(setting.manifest, "train")
    return PeopleDataset.of_model(cache, setting.build_model(), sizes=setting.sizes)


def build_loader_loop(setting: Setting, *, augments: bool) -> Callable[[int], None]:
    """Builds a loop that reads batches, and discards them."""
    people = open_people(setting)

    def run(n_steps: int) -> None:
        plan = plan_batches(setting.positions(n_steps, len(people)), 0, setting.options.batch_size)
        pins = setting.device.type == "cuda"
        batches = iterate_training_batches(people, plan, setting.options.workers, pins_memory=pins)
        for batch in move_ahead(batches, setting.device):
            if augments:
                assert set(batch.inputs) == set(people.streams)

    return run


def build_emoface_loop(setting: Setting) -> Callable[[int], None]:
    """Builds the trainer of ``emoface train``; its first epoch is the warm-up."""
    options = setting.options
    people = open_people(setting)
    split = SplitPeople(people, setting.positions(1, len(people)))
    fabric = build_fabric(options.device, options.precision)
    if options.compile:
        check_compiler(fabric.device)
    trainer = Trainer(
        fabric,
        setting.build_model(),
        setting.recipe,
        split,
        split,
        Path("unused"),
        workers=options.workers,
        compiles=options.compile,
    )

    def run(n_steps: int) -> None:
        trainer.train = replace(split, positions=setting.positions(n_steps, len(people)))
        trainer.train_one_epoch(0)

    return run


# The loops of others


def build_plain_loop(setting: Setting, people: Dataset[Any]) -> Callable[[int], None]:
    """Builds a plain training loop over a ``DataLoader``, with the network, the loss and the optimizer of emoface."""
    options, device = setting.options, setting.device
    model = setting.build_model().to(device)
    optimizer = build_recipe_optimizer(model, setting.recipe)
    loss_of = RecipeLoss(setting.recipe, None)

    def run(n_steps: int) -> None:
        chosen = setting.positions(n_steps, len(people)).tolist()  # type: ignore[arg-type]
        loader = DataLoader(people, options.batch_size, sampler=chosen, num_workers=options.workers, drop_last=True)
        total = 0.0
        for inputs, has_face, labels in loader:
            moved = {stream: pixels.to(device) for stream, pixels in inputs.items()}
            no_ratings = torch.full((len(labels), 3), torch.nan)
            truth = PersonBatch({}, has_face, labels.to(device), no_ratings, torch.arange(len(labels)), setting.sizes)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                output = model(moved, has_face)
            loss = torch.stack(list(loss_of(output, truth).values())).sum()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return run


class ArrayPeople(Dataset[tuple[dict[str, Tensor], bool, Tensor]]):
    """People whose inputs are all in memory as arrays of the size of the network's input."""

    def __init__(self, pixels: dict[str, np.ndarray], has_face: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.has_face, self.labels = pixels, has_face, labels

    @classmethod
    def load(cls, setting: Setting) -> ArrayPeople:
        people = open_people(setting)
        inputs = [people[position] for position in range(len(people))]
        pixels = {stream: np.stack([one[stream] for one in inputs]) for stream in people.streams}
        return cls(pixels, people.cache.people.has_face, people.cache.people.labels.astype(np.float32))

    def __len__(self) -> int:
        return len(self.has_face)

    def __getitem__(self, position: int) -> tuple[dict[str, Tensor], bool, Tensor]:
        inputs = {stream: augment(Image.fromarray(pixels[position])) for stream, pixels in self.pixels.items()}
        return inputs, bool(self.has_face[position]), torch.from_numpy(self.labels[position])


class JpegPeople(Dataset[tuple[dict[str, Tensor], bool, Tensor]]):
    """People whose photos are decoded, cropped and scaled each time."""

    def __init__(self, rows: list[dict[str, Any]], root: Path, streams: tuple[str, ...], sizes: dict[str, int]) -> None:
        self.rows, self.root, self.streams, self.sizes = rows, root, streams, sizes

    @classmethod
    def load(cls, setting: Setting) -> JpegPeople:
        columns = ["image", "body_bbox", "face", "labels"]
        rows = pq.read_table(setting.manifest.split_path("train"), columns=columns).to_pylist()
        streams = setting.build_model().streams
        usable = [row for row in rows if row["body_bbox"] is not None]
        return cls(usable, Path(setting.manifest.image_root), streams, setting.sizes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[dict[str, Tensor], bool, Tensor]:
        row = self.rows[position]
        photo = Image.open(self.root / row["image"]).convert("RGB")
        face = row["face"] and Image.open(io.BytesIO(row["face"]["bytes"])).convert("RGB")
        whole = {"face": face or Image.new("RGB", (1, 1)), "body": photo.crop(row["body_bbox"]), "context": photo}
        scaled = {stream: whole[stream].resize((self.sizes[stream],) * 2) for stream in self.streams}
        labels = torch.tensor(row["labels"], dtype=torch.float32)
        return {stream: augment(one) for stream, one in scaled.items()}, face is not None, labels


def augment(photo: Image.Image) -> Tensor:
    """Mirrors with one half, changes colours by up to 0.4 in random order, and normalises; (3, side, side) float."""
    if torch.rand(()) < 0.5:
        photo = ImageOps.mirror(photo)
    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for number in torch.randperm(len(changes)).tolist():
        photo = changes[number](photo).enhance(1 + _JITTER * (2 * float(torch.rand(())) - 1))
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous().float() / 255
    return (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


if __name__ == "__main__":
    assert tuple(SIZES["128/224"]) == STREAMS
    main()
