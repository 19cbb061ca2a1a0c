"""Compares the speed of ``emoface faces`` with a loop over photos as in the reference repository, and with its parts.

    EMOFACE_WEIGHTS=FOLDER python docs/benchmarks/faces_speed.py DIR [--photos 200] [--rounds 3] [--threads N]
        [--neighbours N]

DIR is a folder that 'emoface parse' has written; its first photos are used. The same photos, the same weights and the
same number of threads are given to each of these, every one in a process of its own, in turn and several times:

- loop: for each photo read (OpenCV), letterbox, network and decoding in torch, non-maximum suppression, crop and write
  a JPEG per face, as ``detect_face.py`` of deepcam-cn/yolov5-face does it, with RGB and one letterbox;
- job: ``emoface faces``, with the assignment to people and the tables that come on top;
- start: the job with one photo: loading, hashing of code, writing of tables;
- decode, network, crop: one part of the job alone, on all threads at once;
- session: the network as before, but one photo after the other on one ONNX Runtime session of all threads.

With ``--neighbours N``, N processes that do nothing but keep a core busy run beside each of them.

Prints a Markdown table of photos per second and processor time per photo (medians of the rounds), the speed of the job
relative to the loop and to what the parts allow together, and how well the faces of job and loop agree. Processor time
depends little on what else the machine does; photos per second are worth something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emoface.datasets.photos import IMAGE_ROOT, PhotoFolder
from emoface.inference.faces import FaceSettings, crop_all_faces, find_detector_weights, load_face_detector
from emoface.prefetch import count_usable_cpus
from emoface.storage.records import need_record, write_record
from emoface.storage.tables import write_table
from emoface.vision.boxes import box_iou
from emoface.vision.crops import crop_square, square_box
from emoface.vision.images import read_photo
from emoface.vision.letterbox import PAD_VALUE, Letterbox
from emoface.vision.threads import one_opencv_thread

SETTINGS = FaceSettings(backend="onnx")
PARTS = ("decode", "network", "crop")
MEASURED = ("loop", "job", "start", *PARTS, "session")


def list_photos(folder: Path) -> list[Path]:
    """The photos of a parsed data set, each once, in the order of its people."""
    root = PhotoFolder.of_data_set(folder).root
    if isinstance(root, str):
        raise SystemExit(f"{root}: the photos must be on this machine")
    images = pq.read_table(folder / "people.parquet", columns=["image"])["image"].to_pylist()
    return [root / image for image in dict.fromkeys(images)]


def take_first_photos(folder: Path, n_photos: int, out: Path) -> None:
    """Writes a data set with the people of the first photos only."""
    people = pq.read_table(folder / "people.parquet")
    images = people["image"].to_pylist()
    chosen = set(list(dict.fromkeys(images))[:n_photos])
    rows = people.to_pylist()
    kept = [number for number, image in enumerate(images) if image in chosen]
    place = {number: index for index, number in enumerate(kept)}
    first_rows = [rows[number]["same_person_as"] for number in kept]
    changed = [
        rows[number] | {"index": index, "same_person_as": place.get(first)}
        for (number, index), first in zip(place.items(), first_rows, strict=True)
    ]
    write_table(out / "people.parquet", pa.Table.from_pylist(changed, schema=people.schema), people.schema)
    record = need_record(folder, "parse")
    info = record.info | {IMAGE_ROOT: str(PhotoFolder.of_data_set(folder).root)}
    write_record(out, replace(record, info=info))


# the loop


def load_torch_network(n_threads: int) -> Any:
    """The network in torch, which decodes its output itself; BatchNorm is folded in, as the reference does."""
    import torch

    from emoface.yolov5face import load_network
    from emoface.yolov5face.folding import fold_batch_norms

    torch.set_num_threads(n_threads)
    return fold_batch_norms(load_network(find_detector_weights(SETTINGS).path)).eval()


def suppress(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy non-maximum suppression in torch, best first; what ``torchvision.ops.nms`` computes."""
    import torch

    order = scores.argsort(descending=True)
    boxes = boxes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    corner = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - torch.maximum(
        boxes[:, None, :2], boxes[None, :, :2]
    )
    shared = corner.clamp(min=0).prod(2)
    overlaps = shared / (areas[:, None] + areas[None] - shared) > iou_threshold
    alive = torch.ones(len(boxes), dtype=torch.bool)
    for k in range(len(boxes)):
        if alive[k]:
            alive[k + 1 :] &= ~overlaps[k, k + 1 :]
    return order[alive]


def run_loop(photos: list[Path], n_threads: int, out: Path) -> Callable[[], list[dict[str, Any]]]:
    """The loop over photos; returns the faces of each photo."""
    import torch

    cv2.setNumThreads(n_threads)
    network = load_torch_network(n_threads)

    @torch.inference_mode()
    def detect(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        letterbox = Letterbox.fit((photo.shape[1], photo.shape[0]), SETTINGS.image_size, max(network.strides))
        is_larger = max(photo.shape[:2]) > SETTINGS.image_size
        wh, (left, top), (net_width, net_height) = letterbox.scaled_wh, letterbox.offset, letterbox.net_wh
        scaled = cv2.resize(photo, wh, interpolation=cv2.INTER_AREA if is_larger else cv2.INTER_LINEAR)
        borders = (top, net_height - wh[1] - top, left, net_width - wh[0] - left)
        padded = cv2.copyMakeBorder(scaled, *borders, cv2.BORDER_CONSTANT, value=(PAD_VALUE,) * 3)
        pixels = torch.from_numpy(padded[:, :, ::-1].transpose(2, 0, 1).copy()).float() / 255
        decoded = network(pixels[None])[0]
        decoded = decoded[decoded[:, 4] > SETTINGS.conf_threshold]
        scores = decoded[:, 4] * decoded[:, 15]
        decoded, scores = decoded[scores >= SETTINGS.conf_threshold], scores[scores >= SETTINGS.conf_threshold]
        boxes = torch.cat((decoded[:, :2] - decoded[:, 2:4] / 2, decoded[:, :2] + decoded[:, 2:4] / 2), 1)
        keep = suppress(boxes, scores, SETTINGS.iou_threshold)
        scale = photo.shape[1] / wh[0], photo.shape[0] / wh[1]
        found = (boxes[keep] - torch.tensor([left, top] * 2)) * torch.tensor(scale * 2)
        found = found.clamp(min=0).minimum(torch.tensor([photo.shape[1], photo.shape[0]] * 2))
        return found.numpy(), scores[keep].numpy()

    def loop() -> list[dict[str, Any]]:
        results = []
        for number, path in enumerate(photos):
            photo = cv2.imread(str(path))
            boxes, scores = detect(photo)
            for k, box in enumerate(boxes):
                if (box[2:] - box[:2]).min() >= SETTINGS.min_face_size:
                    crop = crop_square(photo, *square_box(box, SETTINGS.margin))
                    cv2.imwrite(str(out / f"{number}_{k}.jpg"), crop)
            results.append({"boxes": boxes.tolist(), "scores": scores.tolist()})
        return results

    return loop


# the job and its parts


def run_job(folder: Path) -> Callable[[], list[dict[str, Any]]]:
    """The job; returns the faces that people got, with the number of their photo."""
    from emoface.jobs.faces import FacesConfig, run_faces

    def job() -> list[dict[str, Any]]:
        run_faces(FacesConfig(dir=folder, backend="onnx"))
        faces = pq.read_table(folder / "faces.parquet", columns=["face_bbox", "conf", "face_status"])
        images = pq.read_table(folder / "people.parquet", columns=["image"])["image"].to_pylist()
        number = {image: k for k, image in enumerate(dict.fromkeys(images))}
        return [
            {"photo": number[image], "box": row["face_bbox"], "score": row["conf"]}
            for image, row in zip(images, faces.to_pylist(), strict=True)
            if row["face_status"] == "found"
        ]

    return job


def run_part(part: str, photos: list[Path], n_threads: int) -> Callable[[], None]:
    """One part of the job on all threads; what comes before it is not measured."""
    is_session = part == "session"
    detector = load_face_detector(SETTINGS, n_threads=n_threads if is_session else 1)
    distinct = photos if part == "decode" else photos[:: max(1, len(photos) // 32)]  # in memory, so not too many
    pixels = [] if part == "decode" else [read_photo(path) for path in distinct]
    found = [detector.detect([photo])[0] for photo in pixels] if part == "crop" else []

    def work(k: int) -> None:
        if part == "decode":
            read_photo(photos[k])
        elif part in ("network", "session"):
            detector.detect([pixels[k % len(pixels)]])
        else:
            crop_all_faces(pixels[k % len(pixels)], found[k % len(found)], SETTINGS)

    def measured() -> None:
        with one_opencv_thread(), ThreadPoolExecutor(1 if is_session else n_threads) as pool:
            list(pool.map(work, range(len(photos))))

    return measured


# measuring


@contextmanager
def timed(result: dict[str, Any]) -> Iterator[None]:
    """Adds seconds and processor seconds (of all threads) of the ``with`` block to ``result``."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    result |= {"seconds": time.perf_counter() - wall, "processor": time.process_time() - processor}


def measure_here(name: str, folder: Path, n_threads: int, scratch: Path) -> dict[str, Any]:
    """Measures one of ``MEASURED`` in this process; loading and the first photos are not timed."""
    photos = list_photos(folder)
    if name == "loop":
        run_loop(photos[:3], n_threads, scratch)()
        work: Callable[[], Any] = run_loop(photos, n_threads, scratch)
    else:
        work = run_job(folder) if name in ("job", "start") else run_part(name, photos, n_threads)
    result: dict[str, Any] = {"n_photos": len(photos)}
    with timed(result):
        result["faces"] = work()
    return result


@contextmanager
def busy_process() -> Iterator[None]:
    """Keeps one core busy within the ``with`` block."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def measure(name: str, folder: Path, n_photos: int, n_threads: int) -> dict[str, Any]:
    """Measures one of ``MEASURED`` in a process of its own that may use so many CPUs."""
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        data.mkdir()
        take_first_photos(folder, 1 if name == "start" else n_photos, data)
        command = [sys.executable, __file__, str(data), "--measure", name, "--threads", str(n_threads)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        result: dict[str, Any] = json.loads(output)
        return result


def describe_agreement(loop: list[dict[str, Any]], job: list[dict[str, Any]]) -> str:
    """Compares every face that a person got with the most similar face that the loop found in the same photo."""
    overlaps, differences = [], []
    for face in job:
        others = loop[face["photo"]]
        boxes = np.array(others["boxes"], np.float32).reshape(-1, 4)
        iou = box_iou(np.array([face["box"]], np.float32), boxes)[0] if len(boxes) else np.zeros(1)
        overlaps.append(float(iou.max()))
        differences.append(abs(face["score"] - others["scores"][int(iou.argmax())]) if len(boxes) else 1.0)
    n_equal = sum(iou > 0.95 and score <= 0.02 for iou, score in zip(overlaps, differences, strict=True))
    return (
        f"{n_equal} of the {len(job)} faces that people got are faces of the loop (IoU above 0.95, score within 0.02); "
        f"smallest IoU {min(overlaps, default=1):.4f}, largest difference of scores {max(differences, default=0):.4f}"
    )


def without_start(job: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    """A run of the job less a run with one photo: what only depends on the number of photos."""
    names = ("n_photos", "seconds", "processor")
    return {name: max(job[name] - start[name], 1e-9) for name in names}


def print_table(results: dict[str, list[dict[str, Any]]], n_threads: int) -> None:
    """Prints the table and the ratios."""
    per_photo = [without_start(*pair) for pair in zip(results["job"], results["start"], strict=True)]
    shown = {"loop": results["loop"], "job": per_photo} | {name: results[name] for name in (*PARTS, "session")}
    rate = {name: statistics.median(one["n_photos"] / one["seconds"] for one in many) for name, many in shown.items()}
    cost = {
        name: statistics.median(1000 * one["processor"] / one["n_photos"] for one in many)
        for name, many in shown.items()
    }
    start = statistics.median(one["processor"] for one in results["start"])
    print(
        f"{results['job'][0]['n_photos']} photos, {n_threads} threads, load of the machine {os.getloadavg()[0]:.1f}\n"
    )
    print("| | photos/s | processor time per photo, ms |\n|---|---:|---:|")
    for name in shown:
        print(f"| {name} | {rate[name]:.1f} | {cost[name]:.1f} |")
    together, cost_together = 1 / sum(1 / rate[name] for name in PARTS), sum(cost[name] for name in PARTS)
    print(f"| parts together | {together:.1f} | {cost_together:.1f} |")
    print(f"\njob, not counting its start, which takes {start:.1f} s of processor time:")
    print(f"- {rate['job'] / rate['loop']:.2f} times the photos per second of the loop")
    print(f"- the loop takes {cost['loop'] / cost['job']:.2f} times the processor time of the job")
    print(f"- {rate['job'] / together:.0%} of the photos per second that the parts allow")
    print(f"- the parts take {cost_together / cost['job']:.0%} of the processor time of the job")
    print(f"- {describe_agreement(results['loop'][0]['faces'], results['job'][0]['faces'])}")


def main() -> None:
    """Reads the options, measures everything in turn and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=count_usable_cpus())
    parser.add_argument("--neighbours", type=int, default=0, help="Number of busy processes beside each measurement.")
    parser.add_argument("--measure", choices=MEASURED, help="Measure one in this process and print it as JSON.")
    options = parser.parse_args()
    if options.measure:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
        with tempfile.TemporaryDirectory() as scratch:
            print(json.dumps(measure_here(options.measure, options.dir, options.threads, Path(scratch))))
        return
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in MEASURED}
    with ExitStack() as neighbours:
        for _ in range(options.neighbours):
            neighbours.enter_context(busy_process())
        for _ in range(options.rounds):
            for name in MEASURED:
                results[name].append(measure(name, options.dir, options.photos, options.threads))
    print_table(results, options.threads)


if __name__ == "__main__":
    main()
