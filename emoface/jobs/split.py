"""The split job: ``people.parquet`` and ``faces.parquet`` to ``train``, ``val``, ``test`` and ``manifest.json``.

Every person has a row in one split, with null face columns if no face was found. A person who is annotated more than
once is in one split only; the rows that are left out for this reason are listed in ``left_out.csv``. ``cap:N`` leaves
more people out, only from train, and lists them in ``capped.csv``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator

from emoface.datasets.manifest import MANIFEST_NAME, Manifest, SplitFile, write_manifest
from emoface.datasets.people import find_first_rows
from emoface.datasets.photos import IMAGE_ROOT, UNREADABLE_PHOTOS, PhotoFolder
from emoface.errors import SettingsError, TableError, did_you_mean
from emoface.labels.balancing import cap_people, sampling_weights
from emoface.labels.repeated import choose_row_of_each, find_leaks
from emoface.labels.statistics import label_counts
from emoface.labels.stratification import MIN_PEOPLE, label_shares, stratify_people
from emoface.progress import SILENT, Progress
from emoface.schema import (
    CAPPED_COLUMNS,
    FACE_FOUND,
    FACES_SCHEMA,
    LEFT_OUT_COLUMNS,
    PEOPLE_SCHEMA,
    SAMPLING_WEIGHTS_SCHEMA,
    SPLIT_SCHEMA,
    SPLITS,
    hugging_face_features,
    label_names_of,
    with_labels,
)
from emoface.storage.csv_files import csv_text
from emoface.storage.files import atomic_path, file_sha256, write_text
from emoface.storage.locks import locked
from emoface.storage.records import (
    ALL_INFO,
    JobRecord,
    fact_inputs,
    finish_job,
    hash_inputs,
    need_record,
    record_path,
)
from emoface.storage.settings import Folder, Seed, Settings, TextForm
from emoface.storage.tables import open_bytes, open_table, read_table, write_table

BALANCES = ("none", "cap:N", "weights")
_PHOTO_FACTS = (IMAGE_ROOT, "undecided_frame")
_LEFT_OUT = -1
_NEEDS = {
    "train": "no model can be trained on this data set",
    "val": "training can choose no epoch and evaluation no thresholds by it",
    "test": "no model can be evaluated on it",
}
"""What an empty split means."""
_ROWS_PER_GROUP = 1000
_PEOPLE_REMEDY = "rebuild it with 'emoface parse EMOTIC_ROOT --out DIR'"
_FACES_REMEDY = "rebuild it with 'emoface faces DIR'"
_TRAIN = SPLITS.index("train")


def parse_ratios(ratios: str | Sequence[float]) -> tuple[float, float, float]:
    """Parses the shares of train, val and test.

    Args:
        ratios: Three numbers that sum to 100 or to 1, as ``"70/10/20"`` or as numbers.

    Returns:
        The shares, summing to 1.

    Raises:
        SettingsError: There are not three numbers, one is negative, train has none, or the sum is not 100 or 1.

    Example:
        >>> parse_ratios("70/10/20")
        (0.7, 0.1, 0.2)
    """
    expected = "expected three shares of train, val and test that sum to 100 or 1, such as 70/10/20"
    try:
        parts = [float(part) for part in (ratios.split("/") if isinstance(ratios, str) else ratios)]
    except (ValueError, TypeError) as error:
        raise SettingsError(f"ratios are '{ratios}', {expected}") from error
    total = sum(parts)
    whole = next((whole for whole in (1, 100) if abs(total - whole) < 1e-6 * whole), None)
    if len(parts) != len(SPLITS) or whole is None or min(parts) < 0 or parts[_TRAIN] == 0:
        raise SettingsError(f"ratios are '{ratios}', {expected}")
    return (parts[0] / whole, parts[1] / whole, parts[2] / whole)


def parse_cap(balance: str) -> int | None:
    """Parses the N of ``cap:N``.

    Args:
        balance: ``none``, ``cap:N`` or ``weights``.

    Returns:
        N, or None for ``none`` and ``weights``.

    Raises:
        SettingsError: The balance is none of the three, or N is not a whole number of 1 or more.

    Example:
        >>> parse_cap("cap:3000")
        3000
    """
    if balance in ("none", "weights"):
        return None
    if found := re.fullmatch(r"cap:([1-9]\d*)", balance):
        return int(found[1])
    if balance.startswith("cap"):
        raise SettingsError(f"balance is '{balance}', expected cap:N with N of 1 or more, such as cap:3000")
    raise SettingsError(f"balance is '{balance}'{did_you_mean(balance, BALANCES)}")


@dataclass(frozen=True)
class People:
    """The columns of ``people.parquet`` that the split depends on, one entry per row.

    Attributes:
        index: (n,) ``index`` of each person.
        person_ids: (n,) ``person_id`` of each person.
        images: (n,) path of each person's photo.
        photo: (n,) number of each person's photo, in order of first appearance.
        source_splits: (n,) EMOTIC's own split of each person.
        label_names: The names of the labels.
        indicator: (n, n_labels) labels, 0 or 1.
        first_row: (n,) the first row of the same person, because a person may be annotated more than once.
    """

    index: NDArray[np.int64]
    person_ids: pa.ChunkedArray
    images: pa.ChunkedArray
    photo: NDArray[np.int64]
    source_splits: pa.ChunkedArray
    label_names: tuple[str, ...]
    indicator: NDArray[np.uint8]
    first_row: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> People:
        """Some of the people; ``photo`` and ``first_row`` stay as they are."""
        chosen = pa.array(rows)
        return People(
            index=self.index[rows],
            person_ids=self.person_ids.filter(chosen),
            images=self.images.filter(chosen),
            photo=self.photo[rows],
            source_splits=self.source_splits.filter(chosen),
            label_names=self.label_names,
            indicator=self.indicator[rows],
            first_row=self.first_row[rows],
        )


def _check_balance(balance: str) -> str:
    parse_cap(balance)
    return balance


class SplitConfig(Settings):
    """Settings of the split job."""

    dir: Folder
    """The folder with ``people.parquet`` and ``faces.parquet``."""
    by: Literal["stratified", "emotic"] = "stratified"
    """How to split: a new split by photo with the same label shares in each split, or EMOTIC's own split."""
    ratios: Annotated[tuple[float, float, float], BeforeValidator(parse_ratios), TextForm("70/10/20")] = (0.7, 0.1, 0.2)
    """Shares of train, val and test."""
    seed: Seed = 0
    """Seed of the split; the same seed gives the same split."""
    leaks: Literal["drop", "keep"] = "drop"
    """What to do with people who are annotated twice: drop keeps each person once in a stratified split, and with --by
    emotic it takes people of val and test out of train; keep leaves every row in, as EMOTIC has it."""
    repeated_labels: Literal["evaluation", "train"] = "evaluation"
    """Which labels a person who is annotated twice has in a stratified split: evaluation takes those of val or test,
    which unite several annotators; train takes those of the one annotator of train."""
    balance: Annotated[str, AfterValidator(_check_balance)] = "none"
    """How to balance train: none, cap:N (at most N people per label) or weights (sampling weights)."""


@locked("dir")
def run_split(config: SplitConfig, progress: Progress = SILENT) -> JobRecord:
    """Splits the people by photo and writes the split tables and the manifest.

    Args:
        config: Settings of the job.
        progress: Receives one step per person written.

    Returns:
        The job's record; ``train.parquet``, ``val.parquet``, ``test.parquet`` and ``manifest.json`` are
        written, and ``capped.csv`` or ``sampling_weights.parquet`` if the balance requires it.

    Raises:
        TableError: A table or record is missing, has other columns, or the two tables do not match.
    """
    parse_record, faces_record = need_record(config.dir, "parse"), need_record(config.dir, "faces")
    people = _read_people(config.dir / "people.parquet")
    random = np.random.default_rng(config.seed)
    chosen = _choose_rows(people, config)
    split = _split_people(people, chosen, config, random)
    kept = _cap_train(people, split, config, random)
    outputs = _write_splits(config.dir, people, kept, progress)
    balance = _write_balance(config, people, split, kept)
    # where faces read them, which may be another place than that of parse
    photos = PhotoFolder.of_record({**parse_record.info, **faces_record.info}, config.dir)
    manifest = Manifest(
        path=config.dir / MANIFEST_NAME,
        splits=outputs,
        image_root=str(photos.root),
        undecided_frame=photos.undecided_frame,
        annotations={
            "path": parse_record.info.get("annotations"),
            "files": {Path(path).name: sha256 for path, sha256 in parse_record.files.items()},
            "counts": parse_record.counts,
        },
        detector={
            ("name" if key == "detector" else key): value
            for key, value in faces_record.info.items()
            if key not in (IMAGE_ROOT, UNREADABLE_PHOTOS)
        },
        split=_describe_split(people, split, config) | {"leaks": _write_left_out(people, chosen, config)},
        balance=balance,
        label_names=people.label_names,
        features=hugging_face_features(people.label_names),
    )
    write_manifest(manifest)
    for name, described in manifest.splits.items():
        if not described.rows:
            progress.note(f"Warning: {name} has 0 people; {_NEEDS[name]}")
    return finish_job(
        "split",
        config,
        config.dir,
        module=__name__,
        inputs={
            **hash_inputs(config.dir / name for name in ("people.parquet", "faces.parquet")),
            **fact_inputs(config.dir, "parse", [*_PHOTO_FACTS, "annotations", "files", "counts"]),
            **fact_inputs(config.dir, "faces", [ALL_INFO]),
        },
        outputs=[config.dir / name for name in _output_names(manifest)],
        counts=_count(manifest),
    )


def _read_people(path: Path) -> People:
    columns = ["index", "person_id", "image", "source_split", "labels", "same_person_as"]
    table = read_table(path, PEOPLE_SCHEMA, _PEOPLE_REMEDY, columns)
    photo = table["image"].combine_chunks().dictionary_encode().indices
    labels = table["labels"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    names = label_names_of(table.schema)
    return People(
        index=table["index"].to_numpy(),
        person_ids=table["person_id"],
        images=table["image"],
        photo=photo.to_numpy().astype(np.int64),
        source_splits=table["source_split"],
        label_names=names,
        indicator=labels.reshape(-1, len(names)),
        first_row=find_first_rows(table),
    )


def _choose_rows(people: People, config: SplitConfig) -> NDArray[np.int64]:
    """(n,) for each row, the row that its person has in the splits: itself, unless it is left out for another."""
    rows = np.arange(len(people.index))
    source = _source_splits(people, config)
    if config.leaks == "keep":
        return rows
    if config.by == "emotic":
        evaluated = find_leaks(people.first_row, source, _TRAIN)
        return np.where(evaluated < 0, rows, evaluated)
    preference = source if config.repeated_labels == "evaluation" else -source
    return choose_row_of_each(people.first_row, preference)


def _source_splits(people: People, config: SplitConfig) -> NDArray[np.int64]:
    """(n,) the position in ``SPLITS`` of each row's own split in EMOTIC."""
    import pyarrow.compute as pc

    unknown = sorted(set(people.source_splits.unique().to_pylist()) - set(SPLITS))
    if unknown and config.by == "emotic":
        raise TableError(
            f"{config.dir / 'people.parquet'}: source_split '{unknown[0]}' is none of {', '.join(SPLITS)}; "
            "use --by stratified"
        )
    position = pc.index_in(people.source_splits, pa.array(SPLITS)).fill_null(_TRAIN)
    return np.asarray(position.to_numpy(), np.int64)


def _split_people(
    people: People, chosen: NDArray[np.int64], config: SplitConfig, random: np.random.Generator
) -> NDArray[np.int64]:
    """(n,) the position in ``SPLITS`` of each row's split, ``_LEFT_OUT`` for rows that another row stands for."""
    is_chosen = chosen == np.arange(len(chosen))
    split = np.full(len(chosen), _LEFT_OUT, np.int64)
    if config.by == "stratified":
        split[is_chosen] = stratify_people(people.photo[is_chosen], people.indicator[is_chosen], config.ratios, random)
    else:
        split[is_chosen] = _source_splits(people, config)[is_chosen]
    return split


def _write_left_out(people: People, chosen: NDArray[np.int64], config: SplitConfig) -> dict[str, Any]:
    """Lists the rows that another row of the same person stands for, and describes them."""
    path = config.dir / "left_out.csv"
    left_out = np.flatnonzero(chosen != np.arange(len(chosen)))
    kept_index = people.index[chosen]
    rows = zip(*_name_rows(people, left_out), kept_index[left_out], strict=True)
    write_text(path, csv_text(LEFT_OUT_COLUMNS, rows))
    return {
        "rule": config.leaks,
        "labels": config.repeated_labels if config.by == "stratified" and config.leaks == "drop" else None,
        "rows_annotated_again": int((people.first_row != np.arange(len(chosen))).sum()),
        "rows_left_out": len(left_out),
        "file": path.name,
        "sha256": file_sha256(path),
    }


def _name_rows(people: People, rows: NDArray[np.int64]) -> tuple[Iterable[Any], ...]:
    """The ``index``, ``person_id`` and ``image`` of some rows."""
    return people.index[rows], people.person_ids.take(rows).to_pylist(), people.images.take(rows).to_pylist()


def _cap_train(
    people: People, split: NDArray[np.int64], config: SplitConfig, random: np.random.Generator
) -> NDArray[np.int64]:
    """Returns a copy of the split with ``_LEFT_OUT`` for the people of train that a cap leaves out."""
    limit = parse_cap(config.balance)
    kept = split.copy()
    if limit is not None:
        train = np.flatnonzero(split == _TRAIN)
        kept[train[~cap_people(people.indicator[train], limit, random)]] = _LEFT_OUT
    return kept


def _write_splits(out: Path, people: People, split: NDArray[np.int64], progress: Progress) -> dict[str, SplitFile]:
    """Writes the three tables in order of ``index``, with about one row group of each in memory.

    The old manifest and record are removed before the first table is replaced, so that they never describe
    tables of two runs.
    """
    progress.start("split", len(split))
    n_faces = dict.fromkeys(SPLITS, 0)
    with ExitStack() as files:
        paths = {name: files.enter_context(atomic_path(out / f"{name}.parquet")) for name in SPLITS}
        with ExitStack() as opened:
            schema = with_labels(SPLIT_SCHEMA, people.label_names)
            writers = {name: opened.enter_context(_SplitWriter(path, schema)) for name, path in paths.items()}
            for start, rows in _join_tables(out, people):
                part = split[start : start + rows.num_rows]
                is_found = np.array(rows["face_status"].to_pylist()) == FACE_FOUND
                for number, name in enumerate(SPLITS):
                    chosen = part == number
                    n_faces[name] += int((chosen & is_found).sum())
                    writers[name].add(rows.filter(pa.array(chosen)), name)
                progress.advance(rows.num_rows)
        (out / MANIFEST_NAME).unlink(missing_ok=True)
        record_path(out, "split").unlink(missing_ok=True)
    return {
        name: SplitFile(
            file=f"{name}.parquet",
            rows=int((split == number).sum()),
            photos=len(np.unique(people.photo[split == number])),
            faces=n_faces[name],
            sha256=file_sha256(out / f"{name}.parquet"),
            label_counts=_by_label(people, label_counts(people.indicator[split == number])),
        )
        for number, name in enumerate(SPLITS)
    }


class _SplitWriter:
    """Collects the rows of one split and writes them in row groups of equal size."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = open_bytes(path, "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._waiting = schema.empty_table()

    def add(self, rows: pa.Table, name: str) -> None:
        """Adds rows without their ``split`` column, in the order of the file."""
        named = rows.append_column(SPLIT_SCHEMA.field("split"), pa.array([name] * rows.num_rows, pa.string()))
        self._waiting = pa.concat_tables([self._waiting, named.cast(self._schema)])
        while self._waiting.num_rows >= _ROWS_PER_GROUP:
            self._writer.write_table(self._waiting.slice(0, _ROWS_PER_GROUP))
            self._waiting = self._waiting.slice(_ROWS_PER_GROUP)

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        with self._sink:
            if error is None and self._waiting.num_rows:
                self._writer.write_table(self._waiting)
            self._writer.close()


def _join_tables(out: Path, people: People) -> Iterator[tuple[int, pa.Table]]:
    """Reads both tables in parallel and yields, for each part, its first row number and its joined rows."""
    import pyarrow.compute as pc

    faces_path = out / "faces.parquet"
    with (
        open_table(out / "people.parquet", PEOPLE_SCHEMA, _PEOPLE_REMEDY) as people_file,
        open_table(faces_path, FACES_SCHEMA, _FACES_REMEDY) as faces_file,
    ):
        n_rows = sum(faces_file.row_group_sizes)
        if n_rows != len(people.index):
            raise TableError(
                f"{faces_path}: {n_rows} rows, expected the {len(people.index)} of people.parquet; {_FACES_REMEDY}"
            )
        people_rows = people_file.read(PEOPLE_SCHEMA.names)
        start = 0
        for batch in faces_file.read_batches(_ROWS_PER_GROUP, FACES_SCHEMA.names):
            part = slice(start, start + batch.num_rows)
            is_same = (batch["index"].to_numpy() == people.index[part]) & (
                pc.equal(batch["person_id"], people.person_ids.slice(start, batch.num_rows)).to_numpy()
            )
            if not is_same.all():
                row = int(np.argmin(is_same))
                raise TableError(
                    f"{faces_path}: row {start + row} is of {batch['person_id'][row]}, expected "
                    f"{people.person_ids[start + row]} as in people.parquet; {_FACES_REMEDY}"
                )
            rows = people_rows.slice(start, batch.num_rows)
            for name in FACES_SCHEMA.names[2:]:
                rows = rows.append_column(FACES_SCHEMA.field(name), batch[name])
            yield start, rows
            start += batch.num_rows


def _write_balance(
    config: SplitConfig, people: People, split: NDArray[np.int64], kept: NDArray[np.int64]
) -> dict[str, Any]:
    """Writes the file that the balance requires, removes files of another balance, and describes the balance."""
    capped_path, weights_path = config.dir / "capped.csv", config.dir / "sampling_weights.parquet"
    if parse_cap(config.balance) is None:
        capped_path.unlink(missing_ok=True)
    if config.balance != "weights":
        weights_path.unlink(missing_ok=True)
    if config.balance == "none":
        return {"rule": config.balance}
    if config.balance == "weights":
        train = split == _TRAIN
        weights = sampling_weights(people.indicator[train])
        table = pa.table([people.index[train], weights], schema=SAMPLING_WEIGHTS_SCHEMA)
        write_table(weights_path, table, SAMPLING_WEIGHTS_SCHEMA)
        return {"rule": config.balance, "file": weights_path.name, "sha256": file_sha256(weights_path)}
    left_out = np.flatnonzero((kept == _LEFT_OUT) & (split != _LEFT_OUT))
    write_text(capped_path, csv_text(CAPPED_COLUMNS, zip(*_name_rows(people, left_out), strict=True)))
    return {
        "rule": config.balance,
        "file": capped_path.name,
        "sha256": file_sha256(capped_path),
        "capped": len(left_out),
        "limit": parse_cap(config.balance),
    }


def _describe_split(people: People, split: NDArray[np.int64], config: SplitConfig) -> dict[str, Any]:
    """Describes the settings of the split and the resulting shares, before balancing."""
    people, split = people.take(split != _LEFT_OUT), split[split != _LEFT_OUT]
    shares = label_shares(people.indicator, split, len(SPLITS))
    photos_of = [np.unique(people.photo[split == number]) for number in range(len(SPLITS))]
    n_photos = len(np.unique(people.photo))
    n_people = np.bincount(split, minlength=len(SPLITS))
    is_frequent = label_counts(people.indicator) >= MIN_PEOPLE
    deviations = np.abs(shares - np.array(config.ratios)[:, None])[:, is_frequent]
    return {
        "by": config.by,
        "ratios": dict(zip(SPLITS, config.ratios, strict=True)),
        "seed": config.seed,
        "people_shares": _by_split(n_people / max(len(split), 1)),
        "photo_shares": _by_split([len(photos) / max(n_photos, 1) for photos in photos_of]),
        "photos_in_two_splits": sum(map(len, photos_of)) - n_photos,
        "largest_label_deviation": round(float(deviations.max(initial=0)), 6),
        "label_shares": {
            label: None if np.isnan(column).any() else _by_split(column)
            for label, column in zip(people.label_names, shares.T, strict=True)
        },
    }


def _by_split(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(value), 6) for name, value in zip(SPLITS, values, strict=True)}


def _by_label(people: People, counts: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(people.label_names, counts.tolist(), strict=True))


def _output_names(manifest: Manifest) -> list[str]:
    extra = [manifest.balance["file"]] if "file" in manifest.balance else []
    left_out = manifest.split["leaks"]["file"]
    return [*(described.file for described in manifest.splits.values()), *extra, left_out, MANIFEST_NAME]


def _count(manifest: Manifest) -> dict[str, Any]:
    """Counts for the record: people, photos and faces of each split, and the quality of the split."""
    counts: dict[str, Any] = {
        name: {key: asdict(described)[key] for key in ("rows", "photos", "faces")}
        for name, described in manifest.splits.items()
    }
    counts |= {key: manifest.split[key] for key in ("photos_in_two_splits", "largest_label_deviation")}
    counts |= {key: manifest.split["leaks"][key] for key in ("rows_annotated_again", "rows_left_out")}
    return counts | {key: manifest.balance[key] for key in ("capped",) if key in manifest.balance}
