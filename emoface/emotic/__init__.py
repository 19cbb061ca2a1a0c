"""EMOTIC's annotations: reading of the .mat and the CSV files, correction by documented rules, and writing."""

from emoface.emotic.annotations import PersonAnnotation, PhotoAnnotation
from emoface.emotic.corrections import PEOPLE_NOTES, PHOTO_NOTES, CorrectedPerson, Note, correct_person, find_label
from emoface.emotic.csv_files import read_annotations_csv
from emoface.emotic.mat_files import read_annotations_mat, write_annotations_mat
from emoface.emotic.release import AnnotationFiles, find_annotations, find_image_root, read_annotations
from emoface.emotic.same_people import SamePeople, find_same_people

__all__ = [
    "PEOPLE_NOTES",
    "PHOTO_NOTES",
    "AnnotationFiles",
    "CorrectedPerson",
    "Note",
    "PersonAnnotation",
    "PhotoAnnotation",
    "SamePeople",
    "correct_person",
    "find_annotations",
    "find_image_root",
    "find_label",
    "find_same_people",
    "read_annotations",
    "read_annotations_csv",
    "read_annotations_mat",
    "write_annotations_mat",
]
