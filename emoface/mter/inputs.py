"""The inputs of a model: how a photo becomes its context, and its arrays of each person; importable without torch.

A person can lack an array: each array has a mask of its own, an array of bool beside it, that says who has it. The
values of a person who lacks it are ignored; whoever writes them writes zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emoface.mter.names import STREAM_SIZES, DepthForm, FaceFill, RegionSource

N_LANDMARKS = 68
N_JOINTS = 25
N_PEOPLE = 16
"""People of a photo in the graph of its people, the person itself among them."""
N_PLACE_VALUES = 5
N_REGIONS = 10
N_REGION_FEATURES = 1024
N_BOX_VALUES = 4


_BUILT_IN = {
    "landmarks": "the face detector's five points, no pose",
    "boxes": "the height of the people's body boxes, no depth",
}
"""Providers that replace what the papers use, and what they are."""


@dataclass(frozen=True)
class ContextInput:
    """How the photo becomes the input of a model's context stream.

    Attributes:
        masks_face: Whether the person's face is blanked.
        face_fill: Colour of the blanked face.
        center_share: Side of the central square that the network sees in evaluation, as a share of the photo's side;
            with 1 it is the whole photo. In training the recipe's random crop takes its place.
        masks_body: Whether the person's body box is blanked, in addition to the face.
        body_fill: Colour of the blanked body box.
    """

    masks_face: bool = False
    face_fill: FaceFill = "mean"
    center_share: float = 1.0
    masks_body: bool = False
    body_fill: FaceFill = "black"


@dataclass(frozen=True)
class InputForm:
    """The form of an input that is one float32 array per person.

    Attributes:
        shape: Shape of the array of one person. Of a map, the sides are those of an input of the default size.
        meaning: What the values are, in which unit and range, as a phrase for errors and documentation.
        presence: Name of the mask, bool, that is False where the values are not available and therefore ignored.
        presence_shape: Shape of the mask of one person: () where the whole array is there or not, (k,) where each of
            its k rows is.
        sized_as: Of a map over a photo stream's pixels, the name of that stream: the map has its side, and is cropped
            and mirrored with it. Empty for all other inputs.
    """

    shape: tuple[int, ...]
    meaning: str
    presence: str
    presence_shape: tuple[int, ...] = ()
    sized_as: str = ""

    def shape_at(self, sizes: Mapping[str, int] = STREAM_SIZES) -> tuple[int, ...]:
        """The shape of the array of one person.

        Args:
            sizes: Side of each stream's input, pixels.

        Example:
            >>> DEPTH.shape_at({"context": 112}), POSE.shape_at()
            ((1, 112, 112), (3, 25))
        """
        return (*self.shape[:-2], sizes[self.sized_as], sizes[self.sized_as]) if self.sized_as else self.shape

    def absent(
        self, n_people: int, sizes: Mapping[str, int] = STREAM_SIZES
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Builds the values and the mask of people who lack the input.

        Args:
            n_people: Number of people.
            sizes: Side of each stream's input, pixels.

        Returns:
            (n_people, *shape) zeros, and (n_people, *presence_shape) False.

        Example:
            >>> [part.shape for part in REGIONS.absent(2)]
            [(2, 10, 1028), (2, 10)]
        """
        shape = (n_people, *self.shape_at(sizes))
        return np.zeros(shape, np.float32), np.zeros((n_people, *self.presence_shape), np.bool_)


FACE_LANDMARKS = InputForm(
    shape=(2 * N_LANDMARKS,),
    meaning="68 points of the face as x, y, x, y..., shares of the width and height of the face box",
    presence="has_landmarks",
)
POSE = InputForm(
    shape=(3, N_JOINTS),
    meaning="x, y and confidence of the 25 joints of BODY_25, x and y as shares of the width and height of the body "
    "box, confidence 0-1 and 0 for a joint that is not known",
    presence="has_pose",
)
DEPTH = InputForm(
    shape=(1, STREAM_SIZES["context"], STREAM_SIZES["context"]),
    meaning="depth of the photo, 0-1, 1 is nearest",
    presence="has_depth",
    sized_as="context",
)
PEOPLE = InputForm(
    shape=(N_PEOPLE, N_PLACE_VALUES),
    meaning="places of the photo's people, the person itself first: centre x, centre y, width and height of the body "
    "box in heights of the photo, and depth of the person, 0-1, 1 is nearest",
    presence="has_place",
    presence_shape=(N_PEOPLE,),
)
REGIONS = InputForm(
    shape=(N_REGIONS, N_REGION_FEATURES + N_BOX_VALUES),
    meaning="1024 features of each of 10 regions of the photo, and the region's box, x1, y1, x2, y2 as shares of the "
    "photo",
    presence="has_region",
    presence_shape=(N_REGIONS,),
)


def model_array_inputs(
    name: str, *, depth_form: DepthForm = "cnn", region_source: RegionSource = "proposals"
) -> dict[str, InputForm]:
    """The inputs that a model takes beside its photo streams, by name; most models have none.

    Args:
        name: One of ``names.MODEL_NAMES``.
        depth_form: See ``Recipe.depth_form``.
        region_source: See ``Recipe.region_source``.

    Example:
        >>> list(model_array_inputs("emoticon")), list(model_array_inputs("mter2"))
        (['face_landmarks', 'pose', 'depth'], [])
    """
    if name == "emoticon":
        depth = {"depth": DEPTH} if depth_form == "cnn" else {"people": PEOPLE}
        return {"face_landmarks": FACE_LANDMARKS, "pose": POSE, **depth}
    if name == "affective-graph" and region_source == "proposals":
        return {"regions": REGIONS}
    return {}


def describe_other_inputs(
    name: str, region_source: RegionSource, tables: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Describes what a model reads beside the photos, for the pages of results.

    Args:
        name: One of ``names.MODEL_NAMES``.
        region_source: See ``Recipe.region_source``.
        tables: By table its ``providers``, see ``person_arrays.describe_array_tables``.

    Returns:
        By table or part, who provided it; built-in replacements of what the paper uses are called so.

    Example:
        >>> describe_other_inputs("emoticon", "proposals", {"pose.parquet": {"providers": ["landmarks"]}})
        {'pose.parquet': "landmarks, built in: the face detector's five points, no pose"}
        >>> describe_other_inputs("affective-graph", "grid", {})
        {'regions': 'grid, built in: a fixed grid in place of region proposals'}
    """
    described = {
        table: "; ".join(
            f"{one}, built in: {_BUILT_IN[one]}" if one in _BUILT_IN else one for one in facts["providers"]
        )
        for table, facts in tables.items()
    }
    if name == "affective-graph" and region_source == "grid":
        described["regions"] = "grid, built in: a fixed grid in place of region proposals"
    return described
