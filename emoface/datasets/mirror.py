"""A data set in an object store, copied once into the user's cache, from where it is read like any other.

The manifest is fetched whenever the data set is opened. A table that it describes is fetched if the copy has another
sha256 than the manifest says; the tables of other inputs, which it does not describe, if the store has another version.

While ``emoface upload`` replaces a data set, a table that the new manifest describes may still have the name that
``new_name`` gives, and a reader that has the manifest of before starts again with the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from emoface.errors import TableError
from emoface.progress import SILENT, Progress
from emoface.schema import DEPTH_TABLE, POSE_TABLE, REGIONS_TABLE
from emoface.storage.files import file_sha256, is_below, parse_json, write_bytes, write_text
from emoface.storage.locks import lock_folder
from emoface.storage.objects import ObjectFolder, to_state
from emoface.storage.records import cached_sha256
from emoface.storage.urls import name_of, parent_of
from emoface.storage.weights import cache_root

OTHER_TABLES = (POSE_TABLE, DEPTH_TABLE, REGIONS_TABLE)
"""Tables beside a manifest that it does not describe."""
_STATES_NAME = "states.json"
_ATTEMPTS = 3


def mirror_folder(url: str) -> Path:
    """The folder of the copy of the data set whose manifest is at a URL, ``data_sets`` in the user's cache."""
    return cache_root() / "data_sets" / hashlib.sha256(url.encode()).hexdigest()[:16]


def new_name(sha256: str) -> str:
    """Name of an object with a table that is to replace another one, below the URL of the data set."""
    return f"new/{sha256}.parquet"


def fetch_data_set(url: str, progress: Progress = SILENT) -> Path:
    """Copies what a data set's manifest describes into the user's cache, as far as it is not there yet.

    Args:
        url: URL of the manifest, such as ``s3://bucket/work/manifest.json``.
        progress: Receives a note while another process copies the same data set.

    Returns:
        The copy of the manifest; the tables are beside it.

    Raises:
        TableError: There is no manifest, or a table that it describes is missing or has another sha256.
        StoreError: The store does not answer, or refuses to.
    """
    store, name = ObjectFolder(str(parent_of(url))), name_of(url)
    folder = mirror_folder(url)
    with lock_folder(folder, progress):
        data = _fetch_tables(store, name, folder)
        _fetch_other_tables(store, folder)
        write_bytes(folder / name, data)  # last, so that a manifest is never beside the tables of another
    return folder / name


def _fetch_tables(store: ObjectFolder, name: str, folder: Path) -> bytes:
    """Copies the tables that a manifest describes, and returns the manifest; again if it was replaced meanwhile."""
    data = _fetch_manifest(store, name)
    for _ in range(_ATTEMPTS - 1):
        try:
            _fetch_tables_of(store, name, data, folder)
            return data
        except TableError:
            before, data = data, _fetch_manifest(store, name)
            if data == before:
                raise
    _fetch_tables_of(store, name, data, folder)
    return data


def _fetch_manifest(store: ObjectFolder, name: str) -> bytes:
    try:
        return store.fetch(name)
    except FileNotFoundError as error:
        raise TableError(
            f"{store.place(name)}: no such object; upload the folder that 'emoface split' has written with 'emoface "
            "upload'"
        ) from error


def _fetch_tables_of(store: ObjectFolder, name: str, data: bytes, folder: Path) -> None:
    for file, sha256 in list_tables(store.place(name), data):
        _fetch_table(store, file, sha256, folder / file)


def list_tables(url: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Lists the files that a manifest describes, with their sha256; ``read_manifest`` names everything else wrong.

    Args:
        url: URL or path of the manifest, for messages.
        data: The manifest.

    Raises:
        TableError: It is no manifest, or a file is not below its folder.
    """
    try:
        card = parse_json(data.decode("utf-8"))
        described = [*card["splits"].values(), *([card["balance"]] if "file" in card["balance"] else [])]
        tables = [(one["file"], one["sha256"]) for one in described]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{url}: not a manifest ({error}); upload the one that 'emoface split' has written") from error
    for file, sha256 in tables:
        if not isinstance(file, str) or not is_below(file):
            raise TableError(f"{url}: the file of a split is {file!r}, expected one in the manifest's folder")
        yield file, str(sha256)


def _fetch_table(store: ObjectFolder, name: str, sha256: str, path: Path) -> None:
    if path.is_file() and cached_sha256(path) == sha256:
        return
    with suppress(FileNotFoundError):
        store.fetch_file(new_name(sha256), path)
        if file_sha256(path) == sha256:
            return
    try:
        store.fetch_file(name, path)
    except FileNotFoundError as error:
        raise TableError(f"{store.place(name)}: no such object, but the manifest beside it lists it") from error
    if (found := file_sha256(path)) != sha256:
        path.unlink()
        raise TableError(
            f"{store.place(name)}: sha256 is {found}, the manifest beside it says {sha256}; upload both again with "
            "'emoface upload'"
        )


def _fetch_other_tables(store: ObjectFolder, folder: Path) -> None:
    """Copies the tables of other inputs that the store has in another version, and removes those that it has not."""
    before = _read_states(folder / _STATES_NAME)
    states: dict[str, str] = {}
    for name in OTHER_TABLES:
        state = to_state(store.ask(name))
        if state is None:
            (folder / name).unlink(missing_ok=True)
            continue
        if before.get(name) != state or not (folder / name).is_file():
            store.fetch_file(name, folder / name)
        states[name] = state
    write_text(folder / _STATES_NAME, json.dumps(states) + "\n")


def _read_states(path: Path) -> Mapping[str, Any]:
    try:
        states = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return states if isinstance(states, dict) else {}
