"""Writes the card of a data set: metadata for the Hugging Face Hub and a datasheet, from what the manifest says.

Source: Gebru et al. 2021, "Datasheets for Datasets"; the metadata are those of the Hugging Face Hub, with which
``datasets.load_dataset("DIR")`` finds the splits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from emoface.datasets.manifest import Manifest
from emoface.datasets.publication import last_name
from emoface.emotic.split_counts import emotic_people
from emoface.errors import SettingsError
from emoface.reporting.croissant import CROISSANT_NAME, describe_croissant
from emoface.reporting.published import is_simulated
from emoface.schema import SOURCES, SPLITS
from emoface.storage.files import read_text, write_text

CARD_NAME = "README.md"
_MARK = "<!-- written by emoface -->"
"""The line by which a card is known from a README that somebody wrote."""
_UNKNOWN_LICENSE = "other"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_EMOTIC_LICENSE = """\
EMOTIC's annotations and photos may be used for non-commercial research only and may not be passed on; whoever wants
them asks its authors. That goes for this data set too: its tables hold EMOTIC's annotations"""
_MOTIVATION = """\
Its form is that of a data set to train and to compare methods that recognise apparent emotion from face, body and
context. Why it was made, by whom, and who paid for it, is not recorded."""
_NOT_FOR = """\
- **Apparent emotion is not felt emotion.** The labels are what annotators believed to see in a photo. They do not say
  what anybody felt, thought or intended.
- Do not use them to make something that decides about a person, or that watches people at work or at school. In the
  European Union, emotion recognition at work and in schools is prohibited by article 5 of the AI Act, with few
  exceptions."""


@dataclass(frozen=True)
class DataCard:
    """What a card says besides the manifest.

    Attributes:
        name: Name of the data set.
        license: Identifier of its licence on the Hugging Face Hub; ``other`` if it is not known.
        has_crops: Whether the tables hold the crops of the faces.
        has_audit: Whether the audit page lies beside the card, in ``report/audit.html``.
    """

    name: str
    license: str = _UNKNOWN_LICENSE
    has_crops: bool = True
    has_audit: bool = False


def render_data_card(manifest: Manifest, card: DataCard) -> str:
    """Renders the card as Markdown, with the metadata of the Hugging Face Hub at its start.

    Args:
        manifest: The data set.
        card: What the manifest does not say.
    """
    sections = {
        "Motivation": _MOTIVATION,
        "Composition": _describe_composition(manifest, card),
        "Collection": _describe_collection(manifest),
        "Preprocessing": _describe_preprocessing(manifest),
        "Splits": _describe_splits(manifest),
        "Known biases": _describe_biases(manifest, card),
        "What it is not for": _NOT_FOR,
        "How to read it": _describe_reading(),
        "Licence and distribution": _describe_license(manifest, card),
        "Maintenance": (
            f"Not recorded. The tables and this card were written by emoface {manifest.emoface_version}; "
            "`manifest.json` has the sha256 of each table."
        ),
    }
    parts = [_render_metadata(manifest, card), _MARK, f"# {card.name}", describe_briefly(manifest, card)]
    for name, text in sections.items():
        parts += [f"## {name}", text]
    return "\n\n".join(parts) + "\n"


def write_data_card(manifest: Manifest, card: DataCard, described: Manifest | None = None) -> list[Path]:
    """Writes the card and the description in the Croissant format beside a manifest.

    Args:
        manifest: The data set.
        card: What its manifest does not say.
        described: The data set that ``manifest`` is a copy of, and from whose place it is told whether its photos are
            drawings; None if it is no copy.

    Returns:
        The two files.

    Raises:
        SettingsError: ``README.md`` is there and is no card of this kind, but somebody's own text.
    """
    path, croissant_path = manifest.path.with_name(CARD_NAME), manifest.path.with_name(CROISSANT_NAME)
    if is_own_card(path):
        raise SettingsError(
            f"{path}: was not written by emoface and is not replaced; rename it, and write the card again"
        )
    facts = describe_croissant(manifest, card.name, describe_briefly(manifest, card), card.license, card.has_crops)
    write_text(path, render_data_card(described or manifest, card))
    write_text(croissant_path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return [path, croissant_path]


def is_own_card(path: Path) -> bool:
    """Whether a file is a README that somebody wrote, and not a card by ``write_data_card``."""
    return path.is_file() and _MARK not in read_text(path, SettingsError)


def is_whole_emotic(manifest: Manifest) -> bool:
    """Whether the annotations have all of EMOTIC's people in each of its splits, and photos of its four sources alone.

    A part of EMOTIC, or photos that somebody arranged in its folders, cannot be told apart by the manifest.
    """
    counts = manifest.annotations.get("counts", {})
    found, sources = counts.get("people_by_split", {}), counts.get("people_by_source", {})
    has_all = all(found.get(split, 0) >= emotic_people(split) for split in SPLITS)
    return has_all and set(sources) <= set(SOURCES) and not is_simulated(manifest.photos.root)


def _render_metadata(manifest: Manifest, card: DataCard) -> str:
    """Renders the metadata as YAML, of which JSON is a part."""
    n_people = sum(one.rows for one in manifest.splits.values())
    values = {
        "pretty_name": card.name,
        "license": card.license,
        **({"license_name": "see-the-section-licence-and-distribution"} if card.license == _UNKNOWN_LICENSE else {}),
        "task_categories": ["image-classification"],
        "size_categories": [next((name for limit, name in _SIZES if n_people < limit), "1M<n<10M")],
        "tags": ["emotion-recognition", "multi-label-classification", "context-aware", "emoface"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": one.file} for name, one in manifest.splits.items()],
            }
        ],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def describe_briefly(manifest: Manifest, card: DataCard) -> str:
    """Describes a data set in three sentences."""
    n_people, n_faces = (sum(getattr(one, key) for one in manifest.splits.values()) for key in ("rows", "faces"))
    crops = "the crop of the face of each person whose face was found" if card.has_crops else "no crops of faces"
    return (
        f"{n_people:,} people in photos, {n_faces:,} of them with a face that was found, each with labels out of "
        f"{len(manifest.label_names)} emotion categories. The tables hold annotations, boxes, and {crops}. **The "
        "photos are not included**: the column `image` has their paths below a folder of photos that you need to have "
        "yourself."
    )


def _describe_composition(manifest: Manifest, card: DataCard) -> str:
    lines = ["| split | people | photos | with a face | file |", "|---|---:|---:|---:|---|"]
    lines += [
        f"| {name} | {one.rows:,} | {one.photos:,} | {one.faces:,} | `{one.file}` |"
        for name, one in manifest.splits.items()
    ]
    lines += ["", "People with each label, in all splits; a person may have several or none:", ""]
    lines.append(", ".join(f"{label} {count:,}" for label, count in _count_labels(manifest).items()) + ".")
    lines += [
        "",
        "Each row is one annotated person. People whose face was not found are kept, with the reason in `face_status`.",
        "`gender` and `age` are those of the annotations. "
        + ("Crops of real faces are personal data. " if card.has_crops else "")
        + "Whether the people in the photos agreed to be in the data set is not recorded.",
    ]
    return "\n".join(lines)


def _describe_collection(manifest: Manifest) -> str:
    counts = manifest.annotations.get("counts", {})
    files = manifest.annotations.get("files", {})
    if is_simulated(manifest.photos.root):
        origin = "The photos are drawings of `emoface simulate`; no real person is in them, and nobody annotated them."
    elif is_whole_emotic(manifest):
        origin = (
            'The annotations have all people of EMOTIC (Kosti et al. 2019, "Context Based Emotion Recognition using '
            'EMOTIC Dataset"), whose photos are from MSCOCO, ADE20K and the web, and whose labels are of crowd workers.'
        )
    else:
        origin = (
            "Where the photos are from and who annotated them is not recorded: the manifest has fewer people than "
            "EMOTIC, or other sources. It may be a part of EMOTIC, or a data set of its own."
        )
    lines = [origin, "", "Read from:", ""]
    lines += [f"- `{last_name(path)}`, sha256 `{sha256}`" for path, sha256 in files.items()] or ["- not recorded"]
    sources = {name: count for name, count in counts.get("people_by_source", {}).items() if count}
    if sources:
        lines += ["", "People by folder of photos: " + ", ".join(f"{k} {v:,}" for k, v in sources.items()) + "."]
    return "\n".join(lines)


def _describe_preprocessing(manifest: Manifest) -> str:
    counts, detector = manifest.annotations.get("counts", {}), manifest.detector
    noted = {name.replace("_", " "): count for name, count in counts.get("irregularities", {}).items()}
    lines = [
        f"- faces were found by `{detector.get('name', 'an unnamed detector')}`, sha256 of its weights "
        f"`{detector.get('weights_sha256', 'not recorded')}`",
        *(
            f"- {name.replace('_', ' ')}: {detector[name]}"
            for name in ("conf_threshold", "iou_threshold", "image_size", "margin", "align", "min_face_size")
            if name in detector
        ),
        "- irregular annotations that were corrected or noted: "
        + (", ".join(f"{name} {count:,}" for name, count in noted.items()) or "none"),
        f"- people whom an earlier row describes too: {counts.get('people_annotated_again', {}).get('rows', 0):,}",
    ]
    return "\n".join(lines)


def _describe_splits(manifest: Manifest) -> str:
    split, leaks = manifest.split, manifest.split.get("leaks", {})
    lines = [f"- method: {split.get('by', 'not recorded')}"]
    if split.get("by") != "emotic" and isinstance(split.get("ratios"), dict):
        shares = "/".join(f"{100 * share:g}" for share in split["ratios"].values())
        lines.append(f"- ratios {shares} of train, val and test; seed {split.get('seed')}")
    lines.append(f"- photos that are in two splits: {split.get('photos_in_two_splits', 'not recorded')}")
    if leaks:
        lines.append(
            f"- people annotated more than once: rule `{leaks.get('rule')}`, "
            f"{leaks.get('rows_left_out', 0):,} rows left out"
        )
    lines.append(f"- balancing of train: rule `{manifest.balance.get('rule', 'not recorded')}`")
    return "\n".join(lines)


def _describe_biases(manifest: Manifest, card: DataCard) -> str:
    ranked = sorted(_count_labels(manifest).items(), key=lambda pair: -pair[1])
    (most, n_most), (least, n_least) = ranked[0], ranked[-1]
    lines = [f"- The most frequent label is {most}, of {n_most:,} people, the least frequent {least}, of {n_least:,}."]
    if absent := [name for name, count in ranked if not count]:
        lines.append(f"- Labels that nobody has: {', '.join(absent)}.")
    lines += [
        f"- {name}: no face was found for {one.rows - one.faces:,} of {one.rows:,} people."
        for name, one in manifest.splits.items()
    ]
    if not is_simulated(manifest.photos.root):
        lines.append("- Annotators judged from a photo alone; how far they agree is not in the manifest.")
    where = "[`report/audit.html`](report/audit.html)" if card.has_audit else "the page that `emoface report` writes"
    lines.append(f"- The audit of label balance, gender, age and faces: {where}.")
    return "\n".join(lines)


def _describe_reading() -> str:
    return "\n".join(
        [
            "```python",
            "import datasets",
            "",
            'data = datasets.load_dataset("FOLDER")  # this folder, or OWNER/NAME on the Hugging Face Hub',
            'print(data["train"][0]["person_id"], data["train"][0]["categories"])',
            "```",
            "",
            "`croissant.json` describes the same tables, their columns and their sha256 in the Croissant format.",
        ]
    )


def _describe_license(manifest: Manifest, card: DataCard) -> str:
    if card.license != _UNKNOWN_LICENSE:
        text = f"`{card.license}`, as whoever wrote this card has stated; the manifest does not record a licence."
    else:
        text = "The manifest does not record a licence."
    if is_whole_emotic(manifest):
        return f"{text} {_EMOTIC_LICENSE}."
    if is_simulated(manifest.photos.root):
        return text
    return f"{text} If it is a part of EMOTIC: {_EMOTIC_LICENSE}."


def _count_labels(manifest: Manifest) -> dict[str, int]:
    """Counts the people with each label, in all splits."""
    splits = manifest.splits.values()
    return {label: sum(one.label_counts.get(label, 0) for one in splits) for label in manifest.label_names}
