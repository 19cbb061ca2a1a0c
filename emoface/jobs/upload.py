"""The upload job: copies a finished data set into an object store, from where other machines train on it.

An object store replaces one object at a time, so the order keeps a whole data set in it: new tables first, under names
of their own where others are in the store already; the manifest, which makes them valid in one step; and then the names
that the manifest gives them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from emoface.datasets.manifest import MANIFEST_NAME, read_manifest
from emoface.datasets.mirror import OTHER_TABLES, list_tables, new_name
from emoface.errors import SettingsError, UploadError
from emoface.progress import SILENT, Progress
from emoface.storage.files import parse_json
from emoface.storage.locks import lock_folder
from emoface.storage.objects import ObjectFolder, to_state
from emoface.storage.records import JobRecord, code_fingerprint, hash_inputs, hash_outputs, to_settings
from emoface.storage.settings import Folder, FolderOrUrl, Settings
from emoface.storage.urls import is_url

_UPLOADED_NAME = "uploaded.json"
"""The object that says which files the others were made of."""
_LOCAL_PHOTOS = (
    "the photos are in {root} on this machine: another machine needs them at the same path, or trains with --images; "
    "if they are in a store, too, name their URL with --images of this command"
)


class UploadConfig(Settings):
    """Settings of the upload job."""

    dir: Folder
    """Folder of the data set that 'emoface split' has finished."""
    url: str
    """URL of the folder in an object store, such as s3://bucket/emotic_face; the bucket has to exist."""
    images: FolderOrUrl | None = None
    """Where the machines that use the copy find the photos: their URL, or a folder that all of them have. By default
    the image root of the data set."""

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if not is_url(self.url):
            raise SettingsError(
                f"url is '{self.url}', expected the URL of a folder in an object store, such as s3://bucket/emotic_face"
            )
        return self


def run_upload(config: UploadConfig, progress: Progress = SILENT) -> JobRecord:
    """Copies the files that ``--manifest URL`` of other jobs reads: the tables with their crops, and the manifest.

    Files that an earlier upload has copied are not sent again. The photos are not copied; the copy of the manifest has
    their URL, or their absolute path, and a note says if it is a path.

    Args:
        config: Settings of the job.
        progress: Receives one step per byte.

    Returns:
        The job's record; it is not written to disk.

    Raises:
        SettingsError: ``images`` is no folder.
        TableError: The folder is no finished data set.
        StoreError: The store does not answer, or refuses to, or there is no such bucket.
        UploadError: Another upload to the same URL ran at the same time.
    """
    with lock_folder(config.dir, progress):
        path = config.dir / MANIFEST_NAME
        manifest = read_manifest(path, check_sha256=True, images=config.images)
        tables = dict(list_tables(str(path), path.read_bytes()))
        others = [config.dir / name for name in OTHER_TABLES if (config.dir / name).is_file()]
        hashes = {**tables, **hash_outputs(config.dir, others)}
        if not is_url(manifest.image_root):
            progress.note(_LOCAL_PHOTOS.format(root=manifest.image_root))
        upload = _Upload(ObjectFolder(config.url.rstrip("/")), config.dir, hashes, progress)
        upload.send(tables, _manifest_for_all(path, manifest.image_root))
    return JobRecord(
        job="upload",
        settings=to_settings(config),
        inputs={str(config.dir / name): sha256 for name, sha256 in hashes.items()} | hash_inputs([path]),
        outputs={},
        counts={
            "files": len(hashes) + 1,
            "files sent": upload.n_sent,
            "bytes sent": upload.n_bytes,
            "image root": manifest.image_root,
            "manifest": upload.store.place(MANIFEST_NAME),
        },
        code=code_fingerprint(__name__),
    )


def _manifest_for_all(path: Path, image_root: str) -> bytes:
    """The manifest with an image root that means the same wherever the manifest is."""
    data = path.read_bytes()
    card = parse_json(data.decode("utf-8"))
    if card["image_root"] == image_root:
        return data
    text = json.dumps({**card, "image_root": image_root}, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")


@dataclass
class _Upload:
    """One upload to a folder of a store.

    Attributes:
        store: The folder of the store.
        folder: The data set.
        hashes: sha256 of the files to upload, by name.
        progress: Receives one step per byte.
        n_sent: Number of files that were sent.
        n_bytes: Their bytes.
    """

    store: ObjectFolder
    folder: Path
    hashes: Mapping[str, str]
    progress: Progress
    n_sent: int = 0
    n_bytes: int = 0
    _uploaded: dict[str, Any] = field(default_factory=dict)

    def send(self, tables: Container[str], manifest: bytes) -> None:
        """Sends what the store does not have yet, and removes what an earlier upload sent and is no part any more.

        Args:
            tables: Names of the files that the manifest describes.
            manifest: The manifest.
        """
        is_replacing = self.store.ask(MANIFEST_NAME) is not None
        self._uploaded = self._read_uploaded()
        changed = [name for name in self.hashes if not self._has(name)]
        self.progress.start("upload", sum((self.folder / name).stat().st_size for name in changed))
        renamed = []
        for name in changed:
            if is_replacing and name in tables and self.store.ask(name) is not None:
                renamed.append(name)
                self._send_file(name, new_name(self.hashes[name]))
            else:
                self._send_file(name, name)
        self._send_manifest(manifest)
        for name in renamed:
            self._rename(name)
        for name in {*self._uploaded, *OTHER_TABLES} - self.hashes.keys():
            self._remove(name)
        if not all(map(self._has, self.hashes)) or self.store.fetch(MANIFEST_NAME) != manifest:
            raise self._disturbed()

    def _has(self, name: str, stored_name: str | None = None) -> bool:
        """Whether an object is still the one that an upload has made of a file."""
        state = to_state(self.store.ask(stored_name or name))
        sent = {"sha256": self.hashes[name], "state": state}
        return state is not None and self._uploaded.get(stored_name or name) == sent

    def _send_file(self, name: str, stored_name: str) -> None:
        path = self.folder / name
        n_bytes = path.stat().st_size
        if self._has(name, stored_name):
            self.progress.advance(n_bytes)
            return
        self.progress.describe(name)
        self.store.put_file(stored_name, path, self.progress.advance)
        self._remember(name, stored_name)
        self.n_sent += 1
        self.n_bytes += n_bytes

    def _send_manifest(self, manifest: bytes) -> None:
        with suppress(FileNotFoundError):
            if self.store.fetch(MANIFEST_NAME) == manifest:
                return
        self.store.put(MANIFEST_NAME, manifest)
        self.n_sent += 1
        self.n_bytes += len(manifest)

    def _rename(self, name: str) -> None:
        """Gives a new table the name that the manifest has for it, by a copy within the store."""
        try:
            self.store.copy(new_name(self.hashes[name]), name)
        except FileNotFoundError as error:
            raise self._disturbed() from error
        self._remember(name, name)

    def _remember(self, name: str, stored_name: str) -> None:
        state = to_state(self.store.ask(stored_name))
        self._uploaded[stored_name] = {"sha256": self.hashes[name], "state": state}
        self._write_uploaded()

    def _remove(self, stored_name: str) -> None:
        self.store.remove(stored_name)
        if self._uploaded.pop(stored_name, None) is not None:
            self._write_uploaded()

    def _read_uploaded(self) -> dict[str, Any]:
        try:
            uploaded = parse_json(self.store.fetch(_UPLOADED_NAME).decode("utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return uploaded if isinstance(uploaded, dict) else {}

    def _write_uploaded(self) -> None:
        self.store.put(_UPLOADED_NAME, (json.dumps(self._uploaded, indent=2) + "\n").encode())

    def _disturbed(self) -> UploadError:
        return UploadError(
            f"{self.store.url}: changed by somebody else during the upload; make sure that only one upload to this URL "
            "runs at a time, and run the same command again"
        )
