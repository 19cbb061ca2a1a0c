"""Changes photos, weights, checkpoints, MATLAB and NumPy files at random, and reads them.

    python tests/fuzz_files.py --kind photo --count 10000 --seed 0

Each input is made from a whole file by one to three changes: bits flipped, bytes cut off, a range repeated, removed or
exchanged, an integer of 1-8 bytes or a printed number replaced by an extreme one, or the start of a file joined to the
end of another. Where a checksum would let no change through, the changes are made below it: in a member of a zip, or in
a chunk of a PNG, whose checksum is then made right. The same seed gives the same inputs.

The reader of the product reads each of them in a child process that is forked after all imports, with a limit on its
address space. An input is ``read``, or ``refused`` with an error of emoface. These are faults: another exception
(``unexpected``), the end of the process (``crash``), more than ``--memory`` MiB beyond the memory after the imports
(``memory``), more than ``--seconds`` (``slow``), and a file that only the code in an input could have made
(``ran``). The exit code is 1 if there is a fault; ``--keep DIR`` keeps the inputs of faults.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import json
import os
import random
import re
import resource
import select
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import scipy.io
import torch
from PIL import Image

from emoface.datasets.photos import PhotoFolder
from emoface.datasets.wider_truth import read_wider_truth
from emoface.emotic import PersonAnnotation, PhotoAnnotation, read_annotations_mat, write_annotations_mat
from emoface.errors import EmofaceError
from emoface.learning.checkpoints import load_checkpoint
from emoface.mter.pretrained import read_public_weights
from emoface.mter.weight_files import read_weights
from emoface.storage.array_files import read_arrays
from emoface.vision.images import read_photo_size
from emoface.yolov5face import build_network
from emoface.yolov5face.folding import network_weights
from emoface.yolov5face.loading import load_network, save_network
from emoface.yolov5face.onnx_files import to_onnx

try:
    from pillow_heif import register_heif_opener
except ImportError:
    register_heif_opener = None

FAULTS = ("unexpected", "crash", "memory", "slow", "ran")
SENTINEL = "ran"
"""Name of the file that the code in some inputs would make."""

_MEMORY_MIB, _SECONDS = 512, 60.0
_ADDRESS_SPACE = 4 << 30
"""Address space that a child may take beyond what it has after the imports."""
_HEADER_BYTES = 1024
_EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    60000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**62,
    2**64 - 1,
)
_NUMBERS = ("0", "-1", "1e9", "65536", "2147483648", "4294967295", "1000000000000", "9223372036854775807", "9" * 30)


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: Its name, as given with ``--kind``.
        read: Reads a file; raises ``EmofaceError`` to refuse it.
        seeds: The whole files, by name.
        header_bytes: Changes are made among the first bytes alone; 0 for the whole file.
        beside: Files that lie beside the changed one, by name.
    """

    name: str
    read: Callable[[Path], object]
    seeds: dict[str, bytes]
    header_bytes: int = 0
    beside: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What happened to one input: ``read``, ``refused`` or a fault, and the message without paths and numbers."""

    name: str
    message: str = ""


# changes


def mutate(data: bytes, other: bytes, rng: random.Random, header_bytes: int = 0) -> bytes:
    """Makes one to three random changes to a file.

    Args:
        data: The whole file.
        other: Another file, for splices.
        rng: The source of all randomness.
        header_bytes: If it is not 0, the changes are made among that many first bytes alone.
    """
    if data[:2] == b"PK" and rng.random() < 0.7:
        return _mutate_member(data, other, rng)
    if data.startswith(b"\x89PNG") and rng.random() < 0.7:
        return _mutate_chunk(data, rng)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        window = min(len(changed), header_bytes or len(changed))
        rng.choice(_CHANGES)(changed, window, other, rng)
    return bytes(changed)


def _flip(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if window:
            data[rng.randrange(window)] ^= 1 << rng.randrange(8)


def _set_byte(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    if window:
        data[rng.randrange(window)] = rng.randrange(256)


def _cut(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    del data[rng.randint(0, window) :]


def _repeat(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    start = rng.randint(0, window)
    part = data[start : start + rng.randint(1, 64)]
    data[start:start] = part * rng.choice((1, 2, 50))


def _remove(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    start = rng.randint(0, window)
    del data[start : start + rng.randint(1, 64)]


def _exchange(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    length = rng.randint(1, 16)
    first, second = sorted(rng.randint(0, window) for _ in range(2))
    if second + length <= len(data) and first + length <= second:
        data[first : first + length], data[second : second + length] = (
            data[second : second + length],
            data[first : first + length],
        )


def _set_integer(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    """Replaces 1, 2, 4 or 8 bytes, as a length is stored, by an extreme number."""
    code, n_bytes = rng.choice((("B", 1), ("H", 2), ("I", 4), ("Q", 8)))
    value = rng.choice((*_EXTREMES, len(data), len(data) + 1, rng.getrandbits(64))) % 256**n_bytes
    start = rng.randint(0, max(0, window - n_bytes))
    data[start : start + n_bytes] = struct.pack(rng.choice("<>") + code, value)


def _set_number(data: bytearray, window: int, _: bytes, rng: random.Random) -> None:
    """Replaces a printed number by an extreme one."""
    if found := list(re.finditer(rb"\d+", bytes(data[: min(window, 65536)]))):
        match = rng.choice(found)
        data[match.start() : match.end()] = rng.choice(_NUMBERS).encode()


def _splice(data: bytearray, window: int, other: bytes, rng: random.Random) -> None:
    start = rng.randint(0, window)
    data[start:] = other[min(start, rng.randint(0, max(1, len(other)))) :]


_CHANGES = (
    _flip,
    _flip,
    _set_byte,
    _cut,
    _repeat,
    _remove,
    _exchange,
    _set_integer,
    _set_integer,
    _set_number,
    _splice,
)


def _mutate_member(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Changes one member of a zip, the pickle more often than the arrays; all checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    small = [name for name in members if name.endswith((".pkl", ".npy", "byteorder", "version"))]
    name = rng.choice(small if small and rng.random() < 0.9 else sorted(members))
    members[name] = mutate(members[name], other, rng, rng.choice((0, 4096)))
    return _to_zip(members)


def _to_zip(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def _mutate_chunk(data: bytes, rng: random.Random) -> bytes:
    """Changes one chunk of a PNG and makes its checksum right."""
    chunks, position = [], 8
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        chunks.append((kind, data[position + 8 : position + 8 + length]))
        position += 12 + length
    place = rng.randrange(len(chunks))
    kind, content = chunks[place]
    chunks[place] = kind, mutate(content, content, rng)
    whole = data[:8]
    for kind, content in chunks:
        whole += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return whole


# the whole files


def _photo_seeds() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (24, 36, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E], exif[0x0110] = "a comment of some length", "a camera"
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
    xmp += b"<rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/' tiff:Orientation='6'/></rdf:RDF></x:xmpmeta>"
    ways: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "exif.jpg": (image, {"exif": exif, "comment": "a photo", "dpi": (72, 72)}),
        "xmp.jpg": (image, {"xmp": xmp, "progressive": True}),
        "cmyk.jpg": (image.convert("CMYK"), {"icc_profile": b"profile" * 9}),
        "exif.png": (image, {"exif": exif}),
        "palette.png": (image.convert("P"), {"transparency": 3}),
        "grey16.png": (Image.fromarray(rng.integers(0, 65536, (24, 36), dtype=np.uint16)), {}),
        "exif.webp": (image, {"exif": exif.tobytes()}),
        "lossless.webp": (image.convert("RGBA"), {"lossless": True, "xmp": xmp}),
        "plain.tif": (image, {"exif": exif}),
        "lzw.tif": (image, {"compression": "tiff_lzw", "exif": exif}),
        "jpeg.tif": (image, {"compression": "jpeg"}),
        "fax.tif": (image.convert("1"), {"compression": "group4"}),
        "exif.avif": (image, {"exif": exif.tobytes(), "speed": 10}),
        "plain.gif": (image.convert("P"), {"comment": b"a photo"}),
        "moving.gif": (image, {"save_all": True, "append_images": [image.rotate(90)]}),
        "plain.bmp": (image, {}),
        "palette.bmp": (image.convert("P"), {}),
        "plain.jp2": (image, {}),
        "plain.ppm": (image, {}),
    }
    if register_heif_opener is not None:
        register_heif_opener()
        ways["exif.heic"] = (image, {"exif": exif.tobytes(), "format": "HEIF"})
    seeds = {}
    for name, (photo, options) in ways.items():
        stream = io.BytesIO()
        kind = Image.registered_extensions()[Path(name).suffix]
        photo.save(stream, **{"format": kind, **options})  # type: ignore[arg-type]
        seeds[name] = stream.getvalue()
    return seeds


def _read_photo(path: Path) -> None:
    """Reads the size alone and the whole photo, as parse and faces do."""
    problem = ""
    try:
        read_photo_size(path)
    except EmofaceError as error:
        problem = str(error)
    found = PhotoFolder(path.parent).try_read(path.name, (36, 24))
    if found.photo is None:
        raise EmofaceError(found.reason)
    if problem:
        raise AssertionError(f"the photo is read, but not its size: {problem}")


def _emotic_seeds() -> dict[str, bytes]:
    person = PersonAnnotation(
        body_bbox=(1.0, 2.0, 30.0, 40.0),
        annotator_categories=(("Peace", "Esteem"), ("Peace",)),
        annotator_vad=((5.0, 6.0, 7.0), (4.0, 5.0, 6.0)),
        categories=("Peace", "Esteem"),
        vad=(4.5, 5.5, 6.5),
        gender="Male",
        age="Adult",
    )
    photos = [
        PhotoAnnotation(f"{split}{number}.jpg", "mscoco/images", (640, 480), split, "mscoco", people=(person,) * number)
        for split in ("train", "val", "test")
        for number in range(3)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mat"
        write_annotations_mat(path, photos)
        stream = io.BytesIO()
        plain = scipy.io.loadmat(path)
        scipy.io.savemat(stream, {name: plain[name] for name in ("train", "val", "test")})
        return {"packed.mat": path.read_bytes(), "plain.mat": stream.getvalue()}


def _to_mat(variables: dict[str, object], **options: object) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, **options)
    return stream.getvalue()


def _cells(values: list[object]) -> object:
    cells = np.empty((len(values), 1), dtype=object)
    cells[:, 0] = values
    return cells


def _score_seeds() -> dict[str, bytes]:
    scores, names = np.linspace(0, 1, 78).reshape(3, 26), np.array(["a", "bb", "ccc"], object)
    values: dict[str, object] = {"scores": scores, "names": names, "flags": scores > 0.5, "single": scores.astype("f4")}
    return {
        "plain.mat": _to_mat(values),
        "packed.mat": _to_mat(values, do_compression=True),
        "v4.mat": _to_mat({"scores": scores}, format="4"),
        "sparse.mat": _to_mat({"scores": scipy.sparse.csc_matrix(scores)}),
    }


def _wider_files() -> dict[str, bytes]:
    boxes, names = _cells([np.array([[1, 2, 30, 40], [5, 6, 7, 8]])]), _cells(["photo"])
    kept = _to_mat({"gt_list": _cells([_cells([np.array([[1], [2]])])])})
    truth = {"event_list": _cells(["0--Parade"]), "file_list": _cells([names]), "face_bbx_list": _cells([boxes])}
    return {"wider_face_val.mat": _to_mat(truth)} | {f"wider_{n}_val.mat": kept for n in ("easy", "medium", "hard")}


class Call:
    """Pickles as a call that makes the sentinel file."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.system, (f"touch {SENTINEL}",)


def _to_torch(content: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _pickle_seeds() -> dict[str, bytes]:
    """State dicts and checkpoints in both formats of torch, some with a call; small, so that changes hit the pickle."""
    state = {"conv.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "norm.bias": torch.zeros(2, dtype=torch.float16)}
    run = {
        "model": state,
        "averaged": None,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}},
        "lines": [{"a": 1}],
    }
    legacy = {"_use_new_zipfile_serialization": False}
    parameters = {name: torch.nn.Parameter(value) for name, value in state.items()}
    return {
        "state.pt": _to_torch(state),
        "run.pt": _to_torch(run),
        "parameters.pt": _to_torch({"state_dict": parameters}),
        "legacy.pt": _to_torch(state, **legacy),
        "legacy-run.pt": _to_torch(run, **legacy),
        "call.pt": _to_torch({"model": Call(), **state}),
        "legacy-call.pt": _to_torch({"model": Call(), **state}, **legacy),
    }


def _array_seeds() -> dict[str, bytes]:
    seeds = {}
    for name, array in {
        "scores.npy": np.linspace(0, 1, 78).reshape(3, 26),
        "names.npy": np.array(["a", "bb", "ccc"]),
        "rows.npy": np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i4"), ("b", "f8")]),
        "call.npy": np.array([Call()], dtype=object),
    }.items():
        stream = io.BytesIO()
        np.save(stream, array, allow_pickle=True)
        seeds[name] = stream.getvalue()
    seeds["plain.npz"] = _to_zip({"scores.npy": seeds["scores.npy"], "names.npy": seeds["names.npy"]})
    seeds["call.npz"] = _to_zip({"scores.npy": seeds["scores.npy"], "x.npy": seeds["call.npy"]})
    return seeds


def _network_bytes(suffix: str) -> bytes:
    torch.manual_seed(0)
    network = build_network("yolov5n-0.5-face").eval()
    if suffix == ".onnx":
        return to_onnx(network_weights(network))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"network{suffix}"
        save_network(network, path)
        return path.read_bytes()


def _onnx_seeds() -> dict[str, bytes]:
    """A model with all arrays inside, and one with its arrays in the file ``x.data``."""
    whole = _network_bytes(".onnx")
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.load_model_from_string(whole)
        onnx.save_model(model, f"{folder}/a.onnx", save_as_external_data=True, location="x.data", size_threshold=64)
        return {
            "whole.onnx": whole,
            "outside.onnx": (Path(folder) / "a.onnx").read_bytes(),
            "x.data": (Path(folder) / "x.data").read_bytes(),
        }


NCNN_PARAM = """7767517
4 4
Input            data   0 1 data
Convolution      conv_0 1 1 data a 0=16 1=3 11=3 2=1 3=2 4=1 5=1 6=432 7=1
Swish            act_0  1 1 a b
ConvolutionDepthWise conv_1 1 1 b c 0=16 1=3 3=1 5=0 6=144 7=16
"""


def _ncnn_files(weights_dir: Path | None) -> dict[str, bytes]:
    """The files of a real network if there are some, else of two convolutions."""
    names = ("yolov5n-0.5-face", "yolov5-blazeface")
    if weights_dir is not None and (weights_dir / f"{names[0]}.param").is_file():
        return {f"{n}{s}": (weights_dir / f"{n}{s}").read_bytes() for n in names for s in (".param", ".bin")}
    values = bytes(4 + 4 * 432 + 4 * 16 + 4 + 4 * 144)
    return {"small.param": NCNN_PARAM.encode(), "small.bin": values}


def build_kinds(weights_dir: Path | None = None) -> dict[str, list[Kind]]:
    """The kinds of files by the group that ``--kind`` names; a seed's name gives its input's suffix.

    Args:
        weights_dir: A folder with published weights, to change those instead of small ones.
    """
    ncnn = _ncnn_files(weights_dir)
    params, bins = ({k: v for k, v in ncnn.items() if k.endswith(suffix)} for suffix in (".param", ".bin"))
    param, values = next(iter(params.values())), next(iter(bins.values()))
    outside = _onnx_seeds()
    onnx_seeds, data = {k: v for k, v in outside.items() if k.endswith(".onnx")}, outside["x.data"]
    wider = _wider_files()
    weights = {"network.safetensors": _network_bytes(".safetensors")}
    small = torch.arange(6.0)
    from safetensors.torch import save

    few = {"few.safetensors": save({"a": small, "b": small.half()}, metadata={"network": "yolov5n-0.5-face"})}
    detectors = _pickle_seeds() | {"network.pt": _network_bytes(".pt")}
    official = [] if weights_dir is None else sorted((weights_dir / "official").glob("*.pt"))
    detectors |= {path.name: path.read_bytes() for path in official}
    kinds = [
        Kind("photo", _read_photo, _photo_seeds(), _HEADER_BYTES),
        Kind("mat-emotic", read_annotations_mat, _emotic_seeds()),
        Kind("mat-scores", read_arrays, _score_seeds()),
        Kind("mat-wider", lambda p: read_wider_truth(p.parent), {k: wider[k] for k in sorted(wider)[1:]}, beside=wider),
        Kind("ncnn-param", load_network, params, beside={"x.bin": values}),
        Kind("ncnn-bin", load_network, {k: v[:4096] for k, v in bins.items()} | bins, beside={"x.param": param}),
        Kind("onnx", load_network, onnx_seeds, beside={"x.data": data}),
        Kind("onnx-header", load_network, onnx_seeds, 4 * _HEADER_BYTES, beside={"x.data": data}),
        Kind(
            "onnx-data",
            lambda p: load_network(p.with_name("y.onnx")),
            {"x.data": data},
            beside={"y.onnx": outside["outside.onnx"]},
        ),
        Kind("safetensors", load_network, weights | few, 16 * _HEADER_BYTES),
        Kind("best.safetensors", read_weights, weights | few, 16 * _HEADER_BYTES),
        Kind("checkpoint", load_network, detectors),
        Kind("last.pt", lambda p: load_checkpoint(p, ("model",)), _pickle_seeds()),
        Kind("pretrained", read_public_weights, _pickle_seeds()),
        Kind("arrays", read_arrays, _array_seeds()),
    ]
    groups: dict[str, list[Kind]] = {}
    for kind in kinds:
        groups.setdefault(re.split(r"-", kind.name)[0], []).append(kind)
    return groups


# trials


def make_input(kind: Kind, seed: int, number: int) -> tuple[str, bytes]:
    """Makes the changed file of a number; returns its name and its content."""
    rng = random.Random(f"{seed} {kind.name} {number}")
    name = rng.choice(sorted(kind.seeds))
    other = kind.seeds[rng.choice(sorted(kind.seeds))]
    if number < len(kind.seeds):
        name = sorted(kind.seeds)[number]
        return name, kind.seeds[name]  # first of all the whole files
    return name, mutate(kind.seeds[name], other, rng, kind.header_bytes)


def _place(kind: Kind, folder: Path, name: str, data: bytes) -> Path:
    """Writes an input, and the files beside it, into a folder."""
    for other, content in kind.beside.items():
        (folder / other).write_bytes(content)
    path = folder / (name if name in kind.beside or name.endswith(".data") else f"x{Path(name).suffix}")
    path.write_bytes(data)
    return path


def _read_one(kind: Kind, path: Path, memory_bytes: int) -> Outcome:
    before = _peak_bytes()
    try:
        kind.read(path)
        outcome = Outcome("read")
    except EmofaceError as error:
        outcome = Outcome("refused", f"{type(error).__name__}: {_shorten(str(error), path)}")
    except Exception as error:  # noqa: BLE001 anything else is what this script looks for
        outcome = Outcome("unexpected", f"{type(error).__name__}: {_shorten(str(error), path)}")
    if (path.parent / SENTINEL).exists():
        return Outcome("ran", "code in the file was run")
    used = _peak_bytes() - before
    if used > memory_bytes:
        return Outcome("memory", f"{used >> 20} MiB; {outcome.name} {outcome.message}")
    return outcome


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _shorten(text: str, path: Path) -> str:
    """The message without what differs from input to input, so that equal messages are counted together."""
    text = text.replace(str(path.parent), "").replace("\n", " ")
    text = re.sub(r"b?'[^']*'|b?\"[^\"]*\"", "'...'", text)
    return re.sub(r"0x[0-9a-f]+|-?\d+(\.\d+)?", "0", text)[:160]


def _work(kind: Kind, seed: int, numbers: range, folder: Path, memory_bytes: int, answers: int) -> None:
    """Reads inputs in the child and writes one line per input."""
    os.chdir(folder)
    warnings.simplefilter("ignore")
    faulthandler.disable()
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + _ADDRESS_SPACE, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)  # libraries warn of every damaged file
    for number in numbers:
        name, data = make_input(kind, seed, number)
        outcome = _read_one(kind, _place(kind, folder, name, data), memory_bytes)
        os.write(answers, json.dumps([number, outcome.name, outcome.message]).encode() + b"\n")
        if outcome.name == "memory":
            return  # the memory is measured by its peak, so the next input needs a new process


def try_inputs(
    kind: Kind, seed: int, numbers: range, memory_bytes: int, seconds: float
) -> Iterator[tuple[int, Outcome]]:
    """Reads the inputs of some numbers in children, and yields what happened to each; a child that dies is replaced."""
    next_number = numbers.start
    while next_number < numbers.stop:
        with tempfile.TemporaryDirectory(prefix="fuzz-files-") as name:
            folder = Path(name).resolve()
            receiving, sending = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.close(receiving)
                    _work(kind, seed, range(next_number, numbers.stop), folder, memory_bytes, sending)
                finally:
                    os._exit(0)
            os.close(sending)
            is_late = False
            with os.fdopen(receiving, "rb", buffering=0) as stream:
                while True:
                    if not select.select([stream], [], [], seconds)[0]:
                        is_late = True
                        os.kill(child, signal.SIGKILL)
                    line = stream.readline()
                    if not line or is_late:
                        break
                    number, outcome, message = json.loads(line)
                    yield number, Outcome(outcome, message)
                    next_number = number + 1
            _, status = os.waitpid(child, 0)
            if is_late:
                yield next_number, Outcome("slow", f"more than {seconds:.0f} s")
                next_number += 1
            elif status:
                yield next_number, Outcome("crash", f"exit code {os.waitstatus_to_exitcode(status)}")
                next_number += 1


def fuzz(
    kinds: list[Kind], count: int, seed: int, memory_mib: int, seconds: float, keep: Path | None
) -> dict[str, Counter[Outcome]]:
    """Reads ``count`` inputs of every kind; returns the outcomes by kind."""
    found: dict[str, Counter[Outcome]] = {}
    for kind in kinds:
        outcomes: Counter[Outcome] = Counter()
        start = time.monotonic()
        for number, outcome in try_inputs(kind, seed, range(count), memory_mib << 20, seconds):
            outcomes[outcome] += 1
            if outcome.name in FAULTS and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                name, data = make_input(kind, seed, number)
                (keep / f"{kind.name}-{seed}-{number}-{outcome.name}-{name}").write_bytes(data)
        found[kind.name] = outcomes
        _print(kind, outcomes, seed, time.monotonic() - start)
    return found


def _print(kind: Kind, outcomes: Counter[Outcome], seed: int, seconds: float) -> None:
    totals: Counter[str] = Counter()
    for outcome, n in outcomes.items():
        totals[outcome.name] += n
    text = ", ".join(f"{n} {name}" for name, n in sorted(totals.items()))
    print(f"{kind.name}: {outcomes.total()} inputs, seed {seed}, {seconds:.0f} s: {text}", flush=True)
    for outcome, n in outcomes.most_common():
        if outcome.message:
            print(f"  {n:6d} {outcome.name}: {outcome.message}", flush=True)


def _parse_arguments(groups: dict[str, list[Kind]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [kind.name for kinds in groups.values() for kind in kinds]
    parser.add_argument(
        "--kind", nargs="+", default=["all"], choices=["all", *dict.fromkeys([*groups, *every])], help="Kinds of files."
    )
    parser.add_argument("--count", type=int, default=1000, help="Number of inputs of each kind.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the changes.")
    parser.add_argument("--memory", type=int, default=_MEMORY_MIB, help="Memory that one input may take, MiB.")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="Time that one input may take.")
    parser.add_argument("--keep", type=Path, help="Folder for the inputs of faults.")
    return parser.parse_args()


def main() -> int:
    """Runs the trials that the arguments ask for; returns the exit code."""
    weights = os.environ.get("EMOFACE_WEIGHTS", "").split(os.pathsep)[0]
    torch.set_num_threads(1)
    groups = build_kinds(Path(weights) if weights else None)
    told = _parse_arguments(groups)
    kinds = [k for g, ks in groups.items() for k in ks if {"all", g, k.name} & set(told.kind)]
    found = fuzz(kinds, told.count, told.seed, told.memory, told.seconds, told.keep)
    return int(any(outcome.name in FAULTS for outcomes in found.values() for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
