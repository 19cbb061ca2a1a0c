"""``manifest.json``: the description of a finished data set, with all that training and evaluation need."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

from emoface.datasets.mirror import fetch_data_set
from emoface.datasets.photos import PhotoFolder, check_image_root
from emoface.errors import TableError
from emoface.schema import CATEGORIES, HUGGING_FACE_FEATURES, SPLITS, check_label_names
from emoface.storage.files import file_sha256, is_below, parse_json, read_text, write_text
from emoface.storage.urls import Place, from_portable, parent_of, resolve_place, to_place, to_portable
from emoface.version import __version__
from emoface.vision.orientation import Frame

MANIFEST_NAME = "manifest.json"
_KINDS: dict[type, str] = {str: "text", int: "a whole number", dict: "an object"}
_REMEDY = "rebuild it with 'emoface split DIR'"


@dataclass(frozen=True)
class SplitFile:
    """One split's table.

    Attributes:
        file: Name of the file, in the manifest's folder.
        rows: Number of people.
        photos: Number of different photos.
        faces: Number of people whose face was found.
        sha256: sha256 of the file.
        label_counts: Number of people who have each label.
    """

    file: str
    rows: int
    photos: int
    faces: int
    sha256: str
    label_counts: dict[str, int]


@dataclass(frozen=True)
class Manifest:
    """The description of a data set.

    Attributes:
        path: Path of the manifest; not written into the file.
        splits: The table of each split.
        image_root: The folder that the ``image`` paths are relative to, or its URL in an object store. It is absolute;
            the file has it relative to its own folder if the photos are below or beside that, so that both can move.
        annotations: The sha256 of the annotation files (``files``) and the counts of ``parse`` (``counts``).
        detector: Name, sha256 of the weights and thresholds of the face detector.
        split: Method, ratios and seed, and the resulting shares of people, photos and labels.
        balance: How the labels of train were balanced.
        label_names: The names of ``labels``, in their order: EMOTIC's categories, or labels of the data set's own.
        features: The columns for ``datasets.Features.from_dict``.
        undecided_frame: Frame of the boxes of photos whose size does not tell it, see ``PhotoFolder``.
        emoface_version: The version of emoface that wrote the manifest.
    """

    path: Path
    splits: dict[str, SplitFile]
    image_root: str
    annotations: dict[str, Any]
    detector: dict[str, Any]
    split: dict[str, Any]
    balance: dict[str, Any]
    label_names: tuple[str, ...] = CATEGORIES
    features: dict[str, Any] = field(default_factory=lambda: HUGGING_FACE_FEATURES)
    undecided_frame: Frame = "stored"
    emoface_version: str = __version__

    @property
    def photos(self) -> PhotoFolder:
        """The folder of the photos."""
        return PhotoFolder(to_place(self.image_root), self.undecided_frame)

    def split_path(self, split: str) -> Path:
        """The parquet file of ``train``, ``val`` or ``test``."""
        return self.path.parent / self.splits[split].file


def write_manifest(manifest: Manifest) -> None:
    """Writes a manifest to its path in one step."""
    card = asdict(manifest)
    del card["path"]
    card["image_root"] = to_portable(to_place(manifest.image_root), manifest.path.parent)
    write_text(manifest.path, json.dumps(card, indent=2, ensure_ascii=False) + "\n")


def read_manifest(place: Place, check_sha256: bool = False, images: Place | None = None) -> Manifest:
    """Reads a manifest and checks that the files of its data set exist.

    Args:
        place: Path of ``manifest.json``, or its URL in an object store, from where the data set is copied first; see
            ``datasets.mirror``.
        check_sha256: Whether to read the split files too and check their sha256.
        images: Another place of the photos than the manifest names.

    Raises:
        SettingsError: ``images`` is no folder.
        TableError: The manifest or a split file is missing or invalid, or a sha256 differs.
        StoreError: The object store does not answer, or refuses to.
    """
    path = fetch_data_set(place) if isinstance(place, str) else place
    card = _read_card(path)
    try:
        names = check_label_names(card["label_names"])
    except ValueError as error:
        raise TableError(f"{path}: {error}; {_REMEDY}") from error
    try:
        splits = {name: SplitFile(**_only_fields(SplitFile, card["splits"][name])) for name in SPLITS}
    except (KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path}: splits must describe {', '.join(SPLITS)} ({error}); {_REMEDY}") from error
    _check_types(path, card, splits)
    own = {"path": path, "splits": splits, "label_names": names, "image_root": _find_image_root(place, card, images)}
    manifest = Manifest(**{**_only_fields(Manifest, card), **own})
    for name, described in splits.items():
        _check_file(manifest.split_path(name), described, path, check_sha256)
    return manifest


def _find_image_root(place: Place, card: dict[str, Any], images: Place | None) -> str:
    """The image root as an absolute path or URL; a relative one starts where the manifest is."""
    if images is None:
        return str(from_portable(card["image_root"], parent_of(place)))
    check_image_root(images)
    return str(resolve_place(images))


def _read_card(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise TableError(f"{path}: no such file; write it with 'emoface split DIR'")
    try:
        card = parse_json(read_text(path, TableError))
    except ValueError as error:
        raise TableError(f"{path}: not JSON ({error}); {_REMEDY}") from error
    if not isinstance(card, dict):
        raise TableError(f"{path}: expected a JSON object, found {type(card).__name__}; {_REMEDY}")
    optional = ("path", "undecided_frame")  # manifests that were written before frames were decided have none
    missing = [part.name for part in fields(Manifest) if part.name not in (*optional, *card)]
    if missing:
        raise TableError(f"{path}: {', '.join(missing)} missing; {_REMEDY}")
    return card


def _only_fields(kind: type, card: dict[str, Any]) -> dict[str, Any]:
    """Keeps the values that are fields of a dataclass; a later version of emoface may write more."""
    known = {part.name for part in fields(kind)}
    return {name: value for name, value in card.items() if name in known}


def _check_types(path: Path, card: dict[str, Any], splits: dict[str, SplitFile]) -> None:
    """Checks the types of the values that jobs use, and that the split files are in the manifest's folder."""
    of_split: dict[str, type] = {"file": str, "sha256": str, "label_counts": dict}
    expected: dict[str, type] = {"image_root": str} | dict.fromkeys(
        ("annotations", "detector", "split", "balance", "features"), dict
    )
    for name, kind in expected.items():
        if not isinstance(card[name], kind):
            raise TableError(f"{path}: {name} is {card[name]!r}, expected {_KINDS[kind]}; {_REMEDY}")
    frames = get_args(Frame)
    if card.get("undecided_frame", frames[0]) not in frames:
        raise TableError(
            f"{path}: undecided_frame is {card['undecided_frame']!r}, expected {' or '.join(frames)}; {_REMEDY}"
        )
    for name, described in splits.items():
        for key, value in asdict(described).items():
            kind = of_split.get(key, int)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TableError(f"{path}: {key} of {name} is {value!r}, expected {_KINDS[kind]}; {_REMEDY}")
        _check_is_below(path, name, described.file)
    if "file" in card["balance"]:
        _check_is_below(path, "balance", card["balance"]["file"])
        if not isinstance(sha256 := card["balance"].get("sha256"), str):
            raise TableError(f"{path}: sha256 of balance is {sha256!r}, expected text; {_REMEDY}")


def _check_is_below(path: Path, what: str, file: object) -> None:
    if not (isinstance(file, str) and is_below(file)):
        raise TableError(f"{path}: the file of {what} is {file!r}, expected one in the manifest's folder; {_REMEDY}")


def _check_file(path: Path, described: SplitFile, manifest_path: Path, check_sha256: bool) -> None:
    if not path.is_file():
        raise TableError(f"{path}: no such file, but {manifest_path} lists it; {_REMEDY}")
    if check_sha256 and (found := file_sha256(path)) != described.sha256:
        raise TableError(f"{path}: sha256 is {found}, {manifest_path} says {described.sha256}; {_REMEDY}")
