"""YOLO's text files: one per photo, a line ``class x y width height`` per box, as shares of the photo's size.

The names of the classes are in ``data.yaml``, ``classes.txt`` or ``obj.names``. The labels of ``images/a.jpg`` are
``labels/a.txt``; without such folders the text file lies beside its photo.

Source: https://docs.ultralytics.com/datasets/detect/
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import yaml

from emoface.annotations.people import AnnotatedBox, BoxedPhoto, find_split
from emoface.errors import AnnotationsError, ImageError
from emoface.storage.files import read_text
from emoface.storage.photo_stores import PhotoStore

YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LIST_NAMES = ("classes.txt", "obj.names", "_darknet.labels")
_NO_LABELS = frozenset((*LIST_NAMES, "train.txt", "val.txt", "valid.txt", "test.txt", "notes.txt", "README.txt"))
_WORDS_PER_BOX = (5, 6)
"""With and without a score; a line of more is a polygon."""
_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic")


def find_class_file(folder: Path) -> Path | None:
    """The file that names the classes of a YOLO export; None if there is none."""
    names = (*YAML_NAMES, *LIST_NAMES, *(f"labels/{name}" for name in LIST_NAMES))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def list_label_files(folder: Path) -> list[Path]:
    """Lists the text files of a YOLO export that hold boxes, sorted."""
    base = folder / "labels" if (folder / "labels").is_dir() else folder
    return sorted(path for path in base.rglob("*.txt") if path.name not in _NO_LABELS)


def read_yolo(folder: Path, store: PhotoStore) -> list[BoxedPhoto]:
    """Reads a YOLO export.

    Args:
        folder: Its folder.
        store: The photos, whose sizes turn shares into pixels.

    Raises:
        AnnotationsError: There are no class names or no boxes, a line has another form, or a photo is missing.
    """
    class_file = find_class_file(folder)
    if class_file is None:
        raise AnnotationsError(
            f"{folder}: no names of classes, looked for {', '.join((*YAML_NAMES, *LIST_NAMES))}; expected a YOLO export"
        )
    classes = read_classes(class_file)
    paths = list_label_files(folder)
    if not paths:
        raise AnnotationsError(f"{folder}: no text files with boxes, expected labels/PHOTO.txt of a YOLO export")
    return [_read_photo(path, folder, classes, store) for path in paths]


def read_classes(path: Path) -> dict[int, str]:
    """Reads the names of the classes: the list or mapping ``names`` of a YAML file, or the lines of a text file.

    Raises:
        AnnotationsError: The file has no names.
    """
    text = read_text(path, AnnotationsError)
    if path.name in LIST_NAMES:
        return {number: line.strip() for number, line in enumerate(text.splitlines()) if line.strip()}
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AnnotationsError(f"{path}: not YAML ({error})") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(number, int) for number in names):
        raise AnnotationsError(f"{path}: no list 'names' of classes, expected one such as names: [Anger, Fear]")
    return {number: str(name) for number, name in names.items()}


def _read_photo(path: Path, folder: Path, classes: dict[int, str], store: PhotoStore) -> BoxedPhoto:
    image = next((name for name in _possible_images(path.relative_to(folder)) if store.has(name)), None)
    if image is None:
        wanted = next(_possible_images(path.relative_to(folder)))
        raise AnnotationsError(
            f"{path}: its photo is missing, looked for {store.place(wanted)} and other suffixes; the boxes of YOLO are "
            "shares of the photo's size; name the folder of the photos with --images"
        )
    try:
        size = store.read_size(image)
    except ImageError as error:
        raise AnnotationsError(f"{path}: its photo cannot be read ({error})") from error
    width, height = size.wh("upright")
    boxes = [
        _read_line(path, number, line, classes, (width, height))
        for number, line in enumerate(read_text(path, AnnotationsError).splitlines(), start=1)
        if line.strip()
    ]
    return BoxedPhoto(image, (width, height), boxes, find_split(path.relative_to(folder).as_posix()))


def _possible_images(path: Path) -> Iterator[str]:
    """Paths below the image root that the photo of a text file may have."""
    parts = path.with_suffix("").parts
    with_images = tuple("images" if part == "labels" else part for part in parts)
    without = tuple(part for part in parts if part != "labels")
    for stem in dict.fromkeys(PurePosixPath(*one).as_posix() for one in (with_images, without, parts[-1:])):
        yield from (f"{stem}{suffix}" for suffix in _SUFFIXES)


def _read_line(path: Path, number: int, line: str, classes: dict[int, str], image_wh: tuple[int, int]) -> AnnotatedBox:
    words = line.split()
    try:
        if len(words) not in _WORDS_PER_BOX:
            raise ValueError(line)
        class_number, (x, y, w, h) = int(words[0]), map(float, words[1:5])
    except (ValueError, IndexError):
        raise AnnotationsError(
            f"{path}: line {number} is {line.strip()!r}, expected class x y width height, as shares of the photo"
        ) from None
    if class_number not in classes:
        raise AnnotationsError(f"{path}: line {number} is of class {class_number}, but there are only {len(classes)}")
    width, height = image_wh
    xyxy = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    return AnnotatedBox(classes[class_number], xyxy)
