"""Weight files by name: where they are searched, where they are fetched from, and how their sha256 is checked.

Weights are searched in this order: a file that the user gives; the folders in ``EMOFACE_WEIGHTS``; the user's cache;
the files inside the package. Nothing is downloaded unless ``fetch_weights`` is called.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from emoface.errors import WeightsError, did_you_mean
from emoface.progress import SILENT, Progress
from emoface.storage.cards import read_card
from emoface.storage.downloads import download_file
from emoface.storage.files import atomic_path, file_sha256

SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx", ".tflite", ".param", ".bin")
DEMONSTRATION_DETECTOR = "emoface-yolov5n-0.5"
"""The detector inside the package, trained only on drawn photos."""

DEMONSTRATION_NOTE = (
    f"{DEMONSTRATION_DETECTOR} is the demonstration detector: it was trained on drawn photos alone. For real photos "
    "get a published one with 'emoface weights fetch yolov5n-face'"
)

_PACKAGE_DIR = Path(__file__).parents[1] / "weights_data"
_PAIR = (".param", ".bin")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class CardFile:
    """One file of a weight's card.

    Attributes:
        file: Name of the file on disk.
        address: URL where the file is published; empty if it comes with the package.
        n_bytes: Size of the file in bytes.
        sha256: sha256 of the file.
    """

    file: str
    address: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class WeightsCard:
    """The facts about one published set of weights.

    Attributes:
        name: Name of the weights, such as ``yolov5n-face``.
        network: Name of the network that the weights belong to.
        task: ``detector``, ``backbone``, ``pose`` or ``regions``.
        licence: Licence of the weights.
        format: File format of the weights.
        origin: Who published the weights, as text.
        files: The files to fetch; empty if the user must download them by hand.
    """

    name: str
    network: str
    task: str
    licence: str
    format: str
    origin: str
    files: tuple[CardFile, ...]


@dataclass(frozen=True)
class WeightsFile:
    """Weights on this machine.

    Attributes:
        name: The name that the user asked for.
        network: The network's name; None if it must be read from the file itself.
        path: The file; for an ncnn pair the ``.bin``, with its ``.param`` beside it.
        sha256: sha256 of ``path``.
        found_in: ``option``, ``EMOFACE_WEIGHTS``, ``cache`` or ``package``.
    """

    name: str
    network: str | None
    path: Path
    sha256: str
    found_in: str


def read_cards() -> dict[str, WeightsCard]:
    """Reads the cards of all known weights, by name."""
    return {name: _to_card(name, entry) for name, entry in read_card("weights")["weights"].items()}


def cache_root() -> Path:
    """The user's cache: ``EMOFACE_CACHE``, else ``emoface`` in the system's cache folder.

    On Linux the latter is ``XDG_CACHE_HOME/emoface``, or ``~/.cache/emoface`` if ``XDG_CACHE_HOME`` is not set.
    """
    if given := os.environ.get("EMOFACE_CACHE"):
        return Path(given)
    return platformdirs.user_cache_path("emoface", appauthor=False)


def cache_dir() -> Path:
    """The user's folder of weights: ``weights`` in the cache."""
    return cache_root() / "weights"


def find_weights(name: str, weights_path: Path | None = None) -> WeightsFile:
    """Finds weights on this machine.

    A file of a known card must have the card's sha256.

    Args:
        name: The name of a card, or the name of files that the user added.
        weights_path: A file to use instead, whatever its name.

    Raises:
        WeightsError: The weights are not found, or a file of them is missing or damaged.
    """
    if weights_path is not None:
        if not weights_path.is_file():
            raise WeightsError(f"{weights_path}: no such weight file")
        path = _complete_path(weights_path)
        return WeightsFile(weights_path.stem, None, path, file_sha256(path), "option")
    cards = read_cards()
    card = cards.get(name)
    for folder, found_in in _folders():
        found = _file_in(folder, name, card)
        if found is not None:
            path = _complete_path(found)
            network = card.network if card else None
            return WeightsFile(name, network, path, _checked_sha256(path, card), found_in)
    looked = ", ".join(str(folder) for folder, _ in _folders())
    raise WeightsError(f"no weights '{name}' in {looked}; {_how_to_get(name, cards)}")


def has_weights(name: str) -> bool:
    """Whether weights of that name are on this machine, complete or not."""
    card = read_cards().get(name)
    return any(_file_in(folder, name, card) is not None for folder, _ in _folders())


def fetch_weights(name: str, progress: Progress = SILENT) -> WeightsFile:
    """Downloads the files of a card into the user's cache, unless files with the right sha256 are on this machine.

    Args:
        name: The name of a card.
        progress: Receives one step per byte; and a note if the files are here, in any of the searched folders.

    Returns:
        The file that contains the weights, where it lies.

    Raises:
        WeightsError: The name has no card or no address, or a download failed or does not agree with the card; in that
            case the file is not kept.
    """
    cards = read_cards()
    if name not in cards:
        raise WeightsError(f"no weights are called '{name}'{did_you_mean(name, cards)}")
    if not cards[name].files:
        raise WeightsError(f"'{name}' cannot be fetched: {cards[name].origin}")
    if not all(one.address for one in cards[name].files):
        return find_weights(name)  # the weights are inside the package
    if (right := _find_right(cards[name])) is not None:
        progress.note(f"{right.path}: is there already, with the sha256 of the card; nothing was downloaded")
        return right
    progress.start(f"fetch {name}", sum(one.n_bytes for one in cards[name].files))
    for one in cards[name].files:
        path = cache_dir() / one.file
        if path.is_file() and file_sha256(path) == one.sha256:
            progress.advance(one.n_bytes)
        else:
            download_file(one.address, path, one.n_bytes, one.sha256, progress)
    path = cache_dir() / cards[name].files[-1].file
    return WeightsFile(name, cards[name].network, path, file_sha256(path), "cache")


def _find_right(card: WeightsCard) -> WeightsFile | None:
    """Finds the files of a card on this machine, if they have its sha256 as ``verify_weights`` says; else None."""
    for folder, found_in in _folders():
        path = _file_in(folder, card.name, card)
        if path is not None and all(_verify_part(part, card)["result"] == "right" for part in _parts(path)):
            whole = _parts(path)[-1]
            return WeightsFile(card.name, card.network, whole, file_sha256(whole), found_in)
    return None


def add_weights(path: Path, name: str) -> WeightsFile:
    """Copies a weight file of the user into the cache, under a given name.

    Args:
        path: A file of any known format; for an ncnn pair either file.
        name: The name of the weights in the cache.

    Raises:
        WeightsError: The file is missing or its format is unknown, or the name has a card whose sha256 differs.
    """
    check_addable(path, name)
    path = _complete_path(path)
    for part in _parts(path):
        target = cache_dir() / f"{name}{part.suffix}"
        if target.exists() and target.samefile(part):
            continue
        with atomic_path(target) as temporary:
            shutil.copyfile(part, temporary)
    added = cache_dir() / f"{name}{path.suffix}"
    card = read_cards().get(name)
    return WeightsFile(name, card.network if card else None, added, file_sha256(added), "cache")


def check_addable(path: Path, name: str) -> None:
    """Checks a file and a name against the requirements of ``add_weights``, before anything is copied.

    Raises:
        WeightsError: See ``add_weights``.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: type '{path.suffix}' is not a weight file; known: {', '.join(SUFFIXES)}")
    if not _NAME.fullmatch(name):
        raise WeightsError(f"'{name}' cannot name weights; use letters, digits, '-', '_' and '.'")
    _checked_sha256(_complete_path(path), read_cards().get(name))


def list_weights() -> list[dict[str, str]]:
    """Describes every card and every added file: name, task, licence, format, state, and path or origin."""
    cards = read_cards()
    named_files = {Path(one.file).stem for card in cards.values() for one in card.files}
    names = [*cards, *sorted(_names_on_disk() - cards.keys() - named_files)]
    return [_describe(name, cards.get(name)) for name in names]


def _describe(name: str, card: WeightsCard | None) -> dict[str, str]:
    state, where, path = "absent", card.origin if card else "", None
    for folder, found_in in _folders():
        path = _file_in(folder, name, card)
        if path is not None:
            state, where = found_in if _missing_part(path) is None else f"{found_in}, half a pair", str(path)
            break
    return {
        "name": name,
        "task": card.task if card else "detector",
        "licence": card.licence if card else "",
        "format": path.suffix[1:] if path else card.format if card else "",
        "state": state,
        "where": where,
    }


def verify_weights(names: Iterable[str] = ()) -> list[dict[str, str]]:
    """Checks weight files on this machine against the sha256 of their cards.

    Args:
        names: Which weights to check; if empty, all weights in the searched folders.

    Returns:
        One row per file: name, path, result (``right``, ``wrong``, ``half a pair`` or ``no card``), sha256.

    Raises:
        WeightsError: The weights of a name are in none of the folders.
    """
    cards, rows = read_cards(), []
    wanted = tuple(names)
    for name in wanted:
        if not has_weights(name):
            raise WeightsError(f"no weights '{name}' on this machine; {_how_to_get(name, cards)}")
    for folder, _ in _folders():
        of_file = {Path(one.file).stem: card.name for card in cards.values() for one in card.files}
        for name in sorted({of_file.get(stem, stem) for stem in _names_in(folder)}):
            path = _file_in(folder, name, cards.get(name))
            if path is not None and (not wanted or name in wanted):
                rows += [{"name": name, **_verify_part(part, cards.get(name))} for part in _parts(path)]
    return rows


def _verify_part(part: Path, card: WeightsCard | None) -> dict[str, str]:
    if not part.is_file():
        return {"path": str(part), "result": "half a pair", "sha256": ""}
    wanted, found = _card_sha256(part, card), file_sha256(part)
    result = "no card" if wanted is None else "right" if wanted == found else "wrong"
    return {"path": str(part), "result": result, "sha256": found}


def _to_card(name: str, entry: dict[str, Any]) -> WeightsCard:
    files = tuple(CardFile(one["file"], one.get("address", ""), one["bytes"], one["sha256"]) for one in entry["files"])
    words = {key: entry[key] for key in ("network", "task", "licence", "format", "origin")}
    return WeightsCard(name=name, files=files, **words)


def _folders() -> Iterator[tuple[Path, str]]:
    for folder in os.environ.get("EMOFACE_WEIGHTS", "").split(os.pathsep):
        if folder:
            yield Path(folder), "EMOFACE_WEIGHTS"
    yield cache_dir(), "cache"
    yield _PACKAGE_DIR, "package"


def _file_in(folder: Path, name: str, card: WeightsCard | None) -> Path | None:
    """Finds the file of a name in a folder; for an ncnn pair the ``.bin``, whether or not both files exist."""
    names = [f"{name}{suffix}" for suffix in SUFFIXES] + ([one.file for one in card.files] if card else [])
    for file in names:
        path = folder / file
        if path.is_file():
            return path.with_suffix(".bin") if path.suffix in _PAIR else path
    return None


def _names_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.name.removesuffix(path.suffix) for path in folder.iterdir() if path.suffix in SUFFIXES}


def _names_on_disk() -> set[str]:
    return set().union(*(_names_in(folder) for folder, _ in _folders()))


def _parts(path: Path) -> list[Path]:
    """Lists the files that belong together: both files of an ncnn pair, else the file itself."""
    return [path.with_suffix(suffix) for suffix in _PAIR] if path.suffix in _PAIR else [path]


def _missing_part(path: Path) -> Path | None:
    return next((part for part in _parts(path) if not part.is_file()), None)


def _complete_path(path: Path) -> Path:
    """Returns the file that contains the weights, for an ncnn pair the ``.bin``; raises if either file is missing."""
    missing = _missing_part(path)
    if missing is not None:
        raise WeightsError(f"{missing}: no such file; ncnn weights are a .param and a .bin of the same name")
    return _parts(path)[-1]


def _card_sha256(path: Path, card: WeightsCard | None) -> str | None:
    """The sha256 on the card for a file of that type; None if the card has no such file."""
    if card is None:
        return None
    return next((one.sha256 for one in card.files if Path(one.file).suffix == path.suffix), None)


def _checked_sha256(path: Path, card: WeightsCard | None) -> str:
    """Computes the sha256 of the file that contains the weights; raises if a file differs from its card."""
    found = ""
    for part in _parts(path):
        found, wanted = file_sha256(part), _card_sha256(part, card)
        if card is not None and wanted is not None and found != wanted:
            raise WeightsError(
                f"{part}: sha256 is {found}, expected {wanted} of the card '{card.name}'; remove the file and run "
                f"'emoface weights fetch {card.name}', or give it as '--weights {part}' if it is meant"
            )
    return found


def _how_to_get(name: str, cards: dict[str, WeightsCard]) -> str:
    if name not in cards:
        nearest = did_you_mean(name, cards)
        return f"no card has that name{nearest}; add a file with 'emoface weights add FILE --name {name}'"
    if not all(one.address for one in cards[name].files):
        return "it comes with the package: install emoface again, its files are incomplete"
    if cards[name].files:
        return f"run 'emoface weights fetch {name}', or name a folder that holds them in EMOFACE_WEIGHTS"
    return cards[name].origin
