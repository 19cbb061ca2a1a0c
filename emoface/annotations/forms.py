"""The forms of annotations of other programs: which one a file or folder has, told by its content, and its people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args
from xml.etree.ElementTree import Element

from emoface.annotations.coco import is_coco, read_coco
from emoface.annotations.cvat import is_cvat, read_cvat
from emoface.annotations.label_studio import UPLOAD_PREFIX, is_label_studio, read_label_studio
from emoface.annotations.people import BoxedPhoto, FoundPeople, find_people
from emoface.annotations.voc import is_voc, read_voc
from emoface.annotations.xml_files import read_xml
from emoface.annotations.yolo import LIST_NAMES, YAML_NAMES, find_class_file, list_label_files, read_yolo
from emoface.emotic import PhotoAnnotation
from emoface.errors import AnnotationsError
from emoface.storage.files import is_below, parse_json, read_text
from emoface.storage.photo_stores import open_store
from emoface.storage.urls import Place, is_url

FormName = Literal["coco", "cvat", "label-studio", "yolo", "voc"]
FORM_NAMES: tuple[str, ...] = get_args(FormName)

_JSON_FORMS: dict[str, tuple[Callable[[object], bool], Callable[[Path, object], list[BoxedPhoto]]]] = {
    "coco": (is_coco, read_coco),
    "label-studio": (is_label_studio, read_label_studio),
}
_DESCRIBED = (
    "COCO JSON, 'CVAT for images 1.1' XML, the JSON of Label Studio, a YOLO folder (data.yaml or classes.txt and text "
    "files) or a folder of Pascal VOC XML"
)
_ANNOTATION_FOLDERS = ("", "annotations", "Annotations")
_PHOTO_FOLDERS = ("", "images", "JPEGImages", "..", "../images", "../JPEGImages")
_N_LOOKED_FOR = 20
"""Number of photos by which a folder is recognised as the image root."""


@dataclass(frozen=True)
class Export:
    """An export of another program.

    Attributes:
        path: The file or folder.
        form: One of ``FORM_NAMES``.
        files: Every file that is read.
    """

    path: Path
    form: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ReadExport:
    """The people of an export and the folder of their photos.

    Attributes:
        people: The people.
        image_root: The folder that the paths of the photos are relative to, or its URL.
    """

    people: FoundPeople
    image_root: Place


def find_export(path: Path, form: str | None = None) -> Export | None:
    """Finds out which program an export is from, by its content.

    Args:
        path: A file, or a folder that is an export or has one, itself or in its folder ``annotations``.
        form: The form, if it is known.

    Returns:
        The export; None if ``path`` has none and ``form`` was not given.

    Raises:
        AnnotationsError: The file is damaged, files of several forms lie side by side, or it is not of the given form.
    """
    if not path.exists():
        raise AnnotationsError(f"{path}: no such file or folder; name the annotations with --annotations")
    if path.is_file() and path.name in (*YAML_NAMES, *LIST_NAMES):
        export = _find_in_folder(path.parent, "yolo")
    elif path.is_file():
        found = _find_form(path)
        export = None if found is None else Export(path, found, (path,))
    else:
        export = _find_in_folder(path, form)
    if form is not None and (export is None or export.form != form):
        what = "nothing of a known form" if export is None else f"the form {export.form}"
        raise AnnotationsError(f"{path}: found {what}, expected {form}; known are {_DESCRIBED}")
    return export


def read_export(export: Export, label_names: tuple[str, ...], images: Place | None = None) -> ReadExport:
    """Reads the people of an export.

    Args:
        export: The export.
        label_names: The labels of the data set.
        images: The folder of the photos, or its URL; None looks for them in and beside the export.

    Raises:
        AnnotationsError: A file is not of the form, no word is a label, or a photo is outside the image root.
    """
    if export.form == "yolo":
        root: Place = export.path if images is None else images
        boxed = read_yolo(export.path, open_store(root))
    else:
        boxed = [photo for path in export.files for photo in _read_file(export, path)]
        root = _find_image_root(export.path, boxed) if images is None else images
    boxed = _name_uploads(boxed, root)
    if climbing := next((photo.image for photo in boxed if not is_below(photo.image)), None):
        raise AnnotationsError(
            f"{export.path}: the photo {climbing!r} is outside the image root; expected one below it"
        )
    found = find_people(str(export.path), boxed, label_names)
    return ReadExport(replace(found, photos=[_with_source(photo, export.form) for photo in found.photos]), root)


def _with_source(photo: PhotoAnnotation, form: str) -> PhotoAnnotation:
    return replace(photo, database_name=photo.database_name or photo.folder.split("/")[0] or form)


def _find_form(path: Path) -> str | None:
    """The form of a file; None if it is no JSON and no XML, or of another kind."""
    with path.open("rb") as stream:
        start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        root = read_xml(path)
        return "cvat" if is_cvat(root) else "voc" if is_voc(root) else None
    if start.startswith((b"{", b"[")):
        content = _read_json(path)
        return next((form for form, (fits, _) in _JSON_FORMS.items() if fits(content)), None)
    return None


def _find_in_folder(folder: Path, form: str | None) -> Export | None:
    if form == "yolo" or (form is None and find_class_file(folder) is not None):
        class_file = find_class_file(folder)
        files = [] if class_file is None else [class_file]
        return Export(folder, "yolo", (*files, *list_label_files(folder)))
    for place in (folder / name for name in _ANNOTATION_FOLDERS):
        files = sorted(path for path in place.glob("*") if path.suffix.lower() in (".json", ".xml"))
        if export := _join_files(place, files):
            return export
    return _join_files(folder, sorted(folder.rglob("*.xml")))


def _join_files(folder: Path, files: Sequence[Path]) -> Export | None:
    """The export that files of one folder make up, as of Pascal VOC; None if none of them is of a known form."""
    form_of = {path: form for path in files if (form := _find_form(path)) is not None}
    if len(set(form_of.values())) > 1:
        shown = ", ".join(f"{path.name} ({form})" for path, form in list(form_of.items())[:4])
        raise AnnotationsError(f"{folder}: files of several forms, {shown}; name one with --annotations")
    if not form_of:
        return None
    path, form = next(iter(form_of.items()))
    return Export(path if len(form_of) == 1 and form != "voc" else folder, form, tuple(form_of))


def _read_file(export: Export, path: Path) -> list[BoxedPhoto]:
    if export.form in _JSON_FORMS:
        return _JSON_FORMS[export.form][1](path, _read_json(path))
    root: Element = read_xml(path)
    if export.form == "cvat":
        return read_cvat(path, root)
    parts = () if path == export.path else path.parent.relative_to(export.path).parts
    return [read_voc(path, root, "/".join(part for part in parts if part not in _ANNOTATION_FOLDERS))]


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_text(path, AnnotationsError))
    except ValueError as error:
        raise AnnotationsError(f"{path}: not JSON ({error}); expected {_DESCRIBED}") from error


def _find_image_root(path: Path, boxed: Sequence[BoxedPhoto]) -> Path:
    """The first folder in or beside the export that has one of the photos; that of the export if none has."""
    base = path if path.is_dir() else path.parent
    names = [photo.image for photo in boxed[:_N_LOOKED_FOR]]
    names += [UPLOAD_PREFIX.sub("", name) for name in names]
    places = [(base / name).resolve() for name in _PHOTO_FOLDERS]
    return next((place for place in places if any((place / name).is_file() for name in names)), base)


def _name_uploads(boxed: list[BoxedPhoto], root: Place) -> list[BoxedPhoto]:
    """Takes the prefix that Label Studio puts before uploaded photos off the names of those that are there without."""
    if is_url(root) or not any(UPLOAD_PREFIX.match(photo.image) for photo in boxed):
        return boxed
    store = open_store(root)
    shorter = [UPLOAD_PREFIX.sub("", photo.image) for photo in boxed]
    return [
        replace(photo, image=short) if not store.has(photo.image) and store.has(short) else photo
        for photo, short in zip(boxed, shorter, strict=True)
    ]
