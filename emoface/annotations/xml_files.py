"""XML files of other programs, read without document types: those could name other files or grow without limit."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from emoface.errors import AnnotationsError


class _PlainTreeBuilder(ET.TreeBuilder):
    """Builds a tree, and stops at a document type, before any of its entities is read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Refuses the document type."""
        raise _DocumentTypeError(name)


class _DocumentTypeError(Exception):
    """The file declares a document type."""


def read_xml(path: Path) -> ET.Element:
    """Reads an XML file.

    Raises:
        AnnotationsError: It is not XML, or declares a document type (``<!DOCTYPE``).
    """
    try:
        return ET.parse(path, ET.XMLParser(target=_PlainTreeBuilder())).getroot()
    except ET.ParseError as error:
        raise AnnotationsError(f"{path}: not XML ({error}); export the annotations again") from error
    except _DocumentTypeError as error:
        raise AnnotationsError(
            f"{path}: has a document type (<!DOCTYPE {error}>), which can name other files and is not read; remove it"
        ) from error


def read_number(path: Path, element: ET.Element, name: str) -> float:
    """Reads a number of an element: its attribute of that name, or else the text of its child.

    Raises:
        AnnotationsError: There is none.
    """
    text = element.get(name) or element.findtext(name) or ""
    try:
        return float(text)
    except ValueError:
        raise AnnotationsError(f"{path}: {name} of <{element.tag}> is {text!r}, expected a number") from None
