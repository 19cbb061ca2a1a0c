"""CVAT for images 1.1, one XML file: ``<box>`` elements in ``<image>`` elements, with an ``<attribute>`` for each fact.

Source: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from emoface.annotations.people import AnnotatedBox, BoxedPhoto, find_split
from emoface.annotations.xml_files import read_number
from emoface.emotic.annotations import to_image_wh
from emoface.errors import AnnotationsError


def is_cvat(root: Element) -> bool:
    """Whether an XML file looks like CVAT's."""
    return root.tag == "annotations"


def read_cvat(path: Path, root: Element) -> list[BoxedPhoto]:
    """Reads the content of a file of 'CVAT for images 1.1'; shapes other than boxes are ignored.

    Args:
        path: The file, for messages and for its split.
        root: The content.

    Raises:
        AnnotationsError: It is of another form, such as 'CVAT for video', or a value is missing.
    """
    if not is_cvat(root) or root.find("track") is not None:
        found = "tracks of 'CVAT for video'" if is_cvat(root) else f"<{root.tag}>"
        raise AnnotationsError(f"{path}: {found}, expected <annotations> of 'CVAT for images 1.1'; export it so")
    photos = []
    for image in root.iter("image"):
        if not (name := image.get("name", "")):
            raise AnnotationsError(f"{path}: an <image> has no name; export the annotations again")
        photos.append(
            BoxedPhoto(
                image=name,
                image_wh=to_image_wh(read_number(path, image, "width"), read_number(path, image, "height")),
                boxes=[_to_box(path, box) for box in image.iter("box")],
                split=find_split(image.get("subset", ""), name, path.name),
            )
        )
    return photos


def _to_box(path: Path, box: Element) -> AnnotatedBox:
    x1, y1, x2, y2 = (read_number(path, box, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    attributes = {one.get("name", ""): one.text or "" for one in box.iter("attribute")}
    return AnnotatedBox(box.get("label", ""), (x1, y1, x2, y2), attributes)
