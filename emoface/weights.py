"""Weight files by name: where they are looked for, fetched from, and held against their sha256.

A name is looked for in this order: a file that the user gives; the folders in ``EMOFACE_WEIGHTS``; the user's cache;
what the package holds. Nothing is downloaded unless ``fetch_weights`` is called.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoface.cards import read_card
from emoface.errors import WeightsError, did_you_mean
from emoface.files import atomic_path, file_sha256
from emoface.progress import SILENT, Progress

SUFFIXES = (".safetensors", ".pt", ".pth", ".onnx", ".param", ".bin")
_PACKAGE_DIR = Path(__file__).parent / "weights_data"
_TIMEOUT_S = 30
_BLOCK = 1 << 16


@dataclass(frozen=True)
class CardFile:
    """One file of a weight's card.

    Attributes:
        file: Its name on disk.
        address: Where it is published.
        n_bytes: Its size.
        sha256: Of its bytes.
    """

    file: str
    address: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class WeightsCard:
    """What is known of one published set of weights.

    Attributes:
        name: ``yolov5n-face``.
        network: The network that it fills.
        task: ``detector`` or ``backbone``.
        licence: Of the weights.
        format: How they are stored.
        origin: Who published them, in words.
        files: What to fetch; empty where a person must download by hand.
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
        name: What the user asked for.
        network: The network's name, None where the file itself must tell.
        path: The file; of an ncnn pair the ``.bin``, its ``.param`` beside it.
        sha256: Of ``path``.
        found_in: ``option``, ``EMOFACE_WEIGHTS``, ``cache`` or ``package``.
    """

    name: str
    network: str | None
    path: Path
    sha256: str
    found_in: str


def read_cards() -> dict[str, WeightsCard]:
    """All known weights by name."""
    return {name: _to_card(name, entry) for name, entry in read_card("weights")["weights"].items()}


def cache_dir() -> Path:
    """The user's folder of weights: ``EMOFACE_CACHE``, else ``XDG_CACHE_HOME/emoface``, else ``~/.cache/emoface``."""
    if told := os.environ.get("EMOFACE_CACHE"):
        return Path(told) / "weights"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "emoface" / "weights"


def find_weights(name: str, weights_path: Path | None = None) -> WeightsFile:
    """Finds weights on this machine.

    A file of a known card must have the card's sha256.

    Args:
        name: A card's name, or the name of files that were added.
        weights_path: A file to use whatever its name.

    Raises:
        WeightsError: They are nowhere, or damaged.
    """
    cards = read_cards()
    if weights_path is not None:
        if not weights_path.is_file():
            raise WeightsError(f"{weights_path}: no such weight file")
        path = _pair_bin(weights_path)
        return WeightsFile(weights_path.stem, None, path, file_sha256(path), "option")
    looked = []
    for folder, found_in in _folders():
        looked.append(str(folder))
        path = _file_in(folder, name)
        if path is not None:
            network = cards[name].network if name in cards else None
            return WeightsFile(name, network, path, _checked_sha256(path, cards.get(name)), found_in)
    raise WeightsError(f"no weights '{name}' in {', '.join(looked)}; {_how_to_get(name, cards)}")


def fetch_weights(name: str, progress: Progress = SILENT) -> WeightsFile:
    """Downloads the files of a card into the user's cache; files that are there and right stay.

    Raises:
        WeightsError: The name has no card or no address, or a download failed or is not what the card says; no
            file is left behind then.
    """
    cards = read_cards()
    if name not in cards:
        raise WeightsError(f"no weights are called '{name}'{did_you_mean(name, cards)}")
    if not cards[name].files:
        raise WeightsError(f"'{name}' cannot be fetched: {cards[name].origin}")
    progress.start(f"fetch {name}", sum(one.n_bytes for one in cards[name].files))
    for one in cards[name].files:
        path = cache_dir() / one.file
        if path.is_file() and file_sha256(path) == one.sha256:
            progress.advance(one.n_bytes)
        else:
            download_file(one, path, progress)
    path = cache_dir() / cards[name].files[-1].file
    return WeightsFile(name, cards[name].network, path, file_sha256(path), "cache")


def download_file(source: CardFile, path: Path, progress: Progress = SILENT) -> None:
    """Downloads one file and puts it in place only if it is the right one.

    Args:
        source: Its address, size and sha256.
        path: Where it goes.
        progress: Told of each byte.

    Raises:
        WeightsError: The server cannot be reached or says no, sends a page instead of a file, the connection is cut,
            or the bytes are not those of the card.
    """
    digest, n_bytes, start = hashlib.sha256(), 0, b""
    try:
        with (
            urllib.request.urlopen(source.address, timeout=_TIMEOUT_S) as answer,
            atomic_path(path) as temporary,
            temporary.open("wb") as stream,
        ):
            while block := answer.read(_BLOCK):
                start = start or block[:256]
                stream.write(block)
                digest.update(block)
                n_bytes += len(block)
                progress.advance(len(block))
            stream.flush()
            _check_download(source, n_bytes, start, digest.hexdigest(), answer.headers.get_content_type())
    except urllib.error.HTTPError as error:
        raise WeightsError(
            f"{source.address}: the server answered {error.code} {error.reason}; see 'emoface weights list' for the "
            "origin, or download by hand and use 'emoface weights add'"
        ) from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(f"{source.address}: cannot be downloaded ({reason}); check the network and try again") from (
            error
        )


def _check_download(source: CardFile, n_bytes: int, start: bytes, sha256: str, content_type: str) -> None:
    if sha256 == source.sha256:
        return
    if content_type == "text/html" or start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise WeightsError(
            f"{source.address}: got a web page instead of the file; a proxy or login page may stand between. "
            "Open the address in a browser, or download elsewhere and use 'emoface weights add'"
        )
    if n_bytes < source.n_bytes:
        raise WeightsError(
            f"{source.address}: the connection was cut after {n_bytes:,} of {source.n_bytes:,} bytes; try again"
        )
    raise WeightsError(
        f"{source.address}: got {n_bytes:,} bytes with sha256 {sha256}, expected {source.n_bytes:,} bytes with "
        f"{source.sha256}; the file was changed on its way or at its origin and is not kept"
    )


def add_weights(path: Path, name: str) -> WeightsFile:
    """Copies a weight file that the user has into the cache, under a name.

    Args:
        path: Any known format; of an ncnn pair either file.
        name: What it will be called.

    Raises:
        WeightsError: The file is missing or of no known format, or the name has a card whose sha256 differs.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file")
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: type '{path.suffix}' is not a weight file; known: {', '.join(SUFFIXES)}")
    if not name or "/" in name or os.sep in name:
        raise WeightsError(f"'{name}' cannot name weights; use letters, digits, '-', '_' and '.'")
    path = _pair_bin(path)
    _checked_sha256(path, read_cards().get(name))
    parts = [path.with_suffix(".param"), path] if path.suffix == ".bin" else [path]
    for part in parts:
        with atomic_path(cache_dir() / f"{name}{part.suffix}") as temporary:
            shutil.copyfile(part, temporary)
    return find_weights(name, cache_dir() / f"{name}{path.suffix}")


def list_weights() -> list[dict[str, str]]:
    """Every card and every added file: name, task, licence, format, state, where it lies or comes from."""
    cards = read_cards()
    names = [*cards, *sorted(_names_on_disk() - cards.keys())]
    rows = []
    for name in names:
        card = cards.get(name)
        state, where = "absent", card.origin if card else ""
        for folder, found_in in _folders():
            path = _file_in(folder, name)
            if path is not None:
                state, where = found_in, str(path)
                break
        rows.append(
            {
                "name": name,
                "task": card.task if card else "detector",
                "licence": card.licence if card else "",
                "format": path.suffix[1:] if path else card.format if card else "",
                "state": state,
                "where": where,
            }
        )
    return rows


def verify_weights() -> list[dict[str, str]]:
    """Holds every weight file on this machine that has a card against its sha256.

    Returns:
        One row per file: name, path, result (``right``, ``wrong`` or ``no card``), sha256.
    """
    cards, rows = read_cards(), []
    for folder, _ in _folders():
        for name in sorted(_names_in(folder)):
            path = _file_in(folder, name)
            if path is None:
                continue
            for part in (path.with_suffix(".param"), path) if path.suffix == ".bin" else (path,):
                wanted = _card_sha256(part, cards.get(name))
                found = file_sha256(part)
                result = "no card" if wanted is None else "right" if wanted == found else "wrong"
                rows.append({"name": name, "path": str(part), "result": result, "sha256": found})
    return rows


def _to_card(name: str, entry: dict[str, Any]) -> WeightsCard:
    files = tuple(CardFile(one["file"], one["address"], one["bytes"], one["sha256"]) for one in entry["files"])
    words = {key: entry[key] for key in ("network", "task", "licence", "format", "origin")}
    return WeightsCard(name=name, files=files, **words)


def _folders() -> Iterator[tuple[Path, str]]:
    for told in os.environ.get("EMOFACE_WEIGHTS", "").split(os.pathsep):
        if told:
            yield Path(told), "EMOFACE_WEIGHTS"
    yield cache_dir(), "cache"
    yield _PACKAGE_DIR, "package"


def _file_in(folder: Path, name: str) -> Path | None:
    for suffix in SUFFIXES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return _pair_bin(path)
    return None


def _names_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {path.name.removesuffix(path.suffix) for path in folder.iterdir() if path.suffix in SUFFIXES}


def _names_on_disk() -> set[str]:
    return set().union(*(_names_in(folder) for folder, _ in _folders()))


def _pair_bin(path: Path) -> Path:
    """Of an ncnn pair the ``.bin``, which holds the numbers; both must be there."""
    if path.suffix not in (".param", ".bin"):
        return path
    for part in (path.with_suffix(".param"), path.with_suffix(".bin")):
        if not part.is_file():
            raise WeightsError(f"{part}: no such file; ncnn weights are a .param and a .bin of the same name")
    return path.with_suffix(".bin")


def _card_sha256(path: Path, card: WeightsCard | None) -> str | None:
    """What the card says of a file of that type, None where it says nothing."""
    if card is None:
        return None
    return next((one.sha256 for one in card.files if Path(one.file).suffix == path.suffix), None)


def _checked_sha256(path: Path, card: WeightsCard | None) -> str:
    parts = [path.with_suffix(".param"), path] if path.suffix == ".bin" else [path]
    for part in parts:
        found, wanted = file_sha256(part), _card_sha256(part, card)
        if wanted is not None and found != wanted and card is not None:
            raise WeightsError(
                f"{part}: sha256 is {found}, expected {wanted} of the card '{card.name}'; remove the file and run "
                f"'emoface weights fetch {card.name}', or give it as '--weights {part}' if it is meant"
            )
    return found


def _how_to_get(name: str, cards: dict[str, WeightsCard]) -> str:
    if name not in cards:
        nearest = did_you_mean(name, cards)
        return f"no card has that name{nearest}; add a file with 'emoface weights add FILE --name {name}'"
    if cards[name].files:
        return f"run 'emoface weights fetch {name}', or name a folder that holds them in EMOFACE_WEIGHTS"
    return cards[name].origin
