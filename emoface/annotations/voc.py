"""Pascal VOC: one XML file per photo, whose ``<object>`` elements have a name and a ``<bndbox>``.

Source: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from emoface.annotations.people import AnnotatedBox, BoxedPhoto, find_split
from emoface.annotations.xml_files import read_number
from emoface.emotic.annotations import to_image_wh
from emoface.errors import AnnotationsError

_STRUCTURE = frozenset(("name", "bndbox", "attributes", "part"))


def is_voc(root: Element) -> bool:
    """Whether an XML file looks like Pascal VOC's."""
    return root.tag == "annotation"


def read_voc(path: Path, root: Element, folder: str = "") -> BoxedPhoto:
    """Reads the content of one file of Pascal VOC.

    Args:
        path: The file, for messages.
        root: The content.
        folder: Folder of the file below that of the whole export, which is that of the photo below its root.

    Raises:
        AnnotationsError: It is of another form, or a value is missing.
    """
    name, size = root.findtext("filename", "").strip(), root.find("size")
    if not is_voc(root) or not name:
        raise AnnotationsError(
            f"{path}: {'no <filename>' if is_voc(root) else f'<{root.tag}>'}, expected <annotation> of Pascal VOC with "
            "<filename> and <object>"
        )
    wh = None if size is None else to_image_wh(read_number(path, size, "width"), read_number(path, size, "height"))
    boxes = [_to_box(path, one) for one in root.iter("object")]
    return BoxedPhoto(f"{folder}/{name}".lstrip("/"), wh, boxes, find_split(folder, root.findtext("folder", "")))


def _to_box(path: Path, one: Element) -> AnnotatedBox:
    box = one.find("bndbox")
    if box is None:
        raise AnnotationsError(f"{path}: an <object> has no <bndbox>, expected xmin, ymin, xmax, ymax")
    x1, y1, x2, y2 = (read_number(path, box, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    attributes: dict[str, object] = {child.tag: child.text or "" for child in one if child.tag not in _STRUCTURE}
    for attribute in one.iter("attribute"):  # as CVAT writes them
        attributes[attribute.findtext("name", "")] = attribute.findtext("value", "")
    return AnnotatedBox(one.findtext("name", "").strip(), (x1, y1, x2, y2), attributes)
