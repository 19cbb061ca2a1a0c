"""Describes a data set in the Croissant format of MLCommons: its tables, their sha256, and the columns of each split.

Source: "Croissant Format Specification", version 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from emoface.datasets.manifest import Manifest
from emoface.schema import FACE_IMAGE, LIST_LENGTHS, SPLIT_SCHEMA

CROISSANT_NAME = "croissant.json"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MEANINGS = {
    "index": "number of the person in the annotations, from 0",
    "person_id": "path of the photo and number of the person in it",
    "image": "path of the photo below the image root; the photos are not included",
    "source": "folder of photos that the photo is from",
    "source_split": "split of the annotations",
    "image_wh": "width and height of the photo, pixels",
    "body_bbox": "x1, y1, x2, y2 of the person in the photo, pixels",
    "categories": "names of the person's labels",
    "labels": "1 for each label that the person has, in the order of label_names of manifest.json",
    "annotator_votes": "number of annotators who chose each label",
    "n_annotators": "number of annotators",
    "valence": "valence, 1-10",
    "arousal": "arousal, 1-10",
    "dominance": "dominance, 1-10",
    "gender": "gender as judged by annotators",
    "age": "age as judged by annotators",
    "same_person_as": "index of the first row of the same person; null where this is it",
    "face": "crop of the face; null where no face was found",
    "face_bbox": "x1, y1, x2, y2 of the face in the photo, pixels",
    "landmarks": "x and y of both eyes, the nose and the corners of the mouth in the photo, pixels",
    "conf": "score of the face detector, 0-1",
    "assignment_margin": "how much worse the next best assignment of faces to people is for this person",
    "face_status": "found, or the reason why there is no face",
    "split": "train, val or test",
}


def describe_croissant(
    manifest: Manifest, name: str, description: str, license: str, has_crops: bool
) -> dict[str, Any]:
    """Describes a data set as JSON-LD for a file beside its manifest.

    Args:
        manifest: The data set.
        name: Its name.
        description: What it is, in a sentence or two.
        license: Identifier or address of its licence.
        has_crops: Whether the tables hold the crops of the faces; else the column ``face`` is left out.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": name,
        "description": description,
        "license": license,
        "version": f"0.0.0+{_content_id(manifest)}",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": one.file,
                "name": one.file,
                "description": f"{one.rows} people of {split}, in {one.photos} photos, {one.faces} with a face",
                "contentUrl": one.file,
                "encodingFormat": "application/x-parquet",
                "sha256": one.sha256,
            }
            for split, one in manifest.splits.items()
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "splits",
                "name": "splits",
                "description": "the splits of the data set",
                "dataType": "cr:Split",
                "key": {"@id": "splits/name"},
                "field": [
                    {"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"},
                ],
                "data": [{"splits/name": split} for split in manifest.splits],
            },
            *(_describe_split(split, one.file, has_crops) for split, one in manifest.splits.items()),
        ],
    }


def _describe_split(split: str, file: str, has_crops: bool) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"one record for each person of {split}",
        "key": {"@id": f"{split}/index"},
        "field": [
            _describe_field(split, file, column) for column in SPLIT_SCHEMA if has_crops or column.type != FACE_IMAGE
        ],
    }


def _describe_field(split: str, file: str, column: pa.Field) -> dict[str, Any]:
    source: dict[str, Any] = {"fileObject": {"@id": file}, "extract": {"column": column.name}}
    if column.type == FACE_IMAGE:
        source["transform"] = {"jsonPath": "bytes"}
    described = {
        "@type": "cr:Field",
        "@id": f"{split}/{column.name}",
        "name": column.name,
        "description": _MEANINGS[column.name],
        "dataType": _data_type(column.type),
        "source": source,
    }
    if pa.types.is_fixed_size_list(column.type):
        return described | {"isArray": True, "arrayShape": str(column.type.list_size)}
    if column.name in LIST_LENGTHS:
        return described | {"isArray": True, "arrayShape": str(LIST_LENGTHS[column.name])}
    return described | ({"isArray": True, "arrayShape": "-1"} if pa.types.is_list(column.type) else {})


def _data_type(column: pa.DataType) -> str:
    if column == FACE_IMAGE:
        return "sc:ImageObject"
    if pa.types.is_list(column) or pa.types.is_fixed_size_list(column):
        return _data_type(column.value_type)
    if pa.types.is_integer(column):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(column) else "sc:Text"


def _content_id(manifest: Manifest) -> str:
    """The first digits of the sha256 of the tables, which change with the content."""
    return ".".join(one.sha256[:8] for one in manifest.splits.values())
