"""EMOTIC's annotations: read from either released form, mended by stated rules, and written again."""

from emoface.emotic.annotations import PersonAnnotation, PhotoAnnotation
from emoface.emotic.csv_files import read_annotations_csv
from emoface.emotic.mat_files import read_annotations_mat, write_annotations_mat
from emoface.emotic.mending import PEOPLE_NOTES, PHOTO_NOTES, MendedPerson, Note, mend_person

__all__ = [
    "PEOPLE_NOTES",
    "PHOTO_NOTES",
    "MendedPerson",
    "Note",
    "PersonAnnotation",
    "PhotoAnnotation",
    "mend_person",
    "read_annotations_csv",
    "read_annotations_mat",
    "write_annotations_mat",
]
