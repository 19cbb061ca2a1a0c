"""Annotations of other programs: exports in COCO, CVAT, Label Studio, YOLO and Pascal VOC form, read and written."""

from emoface.annotations.coco import write_coco
from emoface.annotations.forms import FORM_NAMES, Export, FormName, find_export, read_export
from emoface.annotations.label_files import read_data_labels
from emoface.annotations.people import FORM_NOTES

__all__ = [
    "FORM_NAMES",
    "FORM_NOTES",
    "Export",
    "FormName",
    "find_export",
    "read_data_labels",
    "read_export",
    "write_coco",
]
