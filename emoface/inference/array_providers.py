"""A model's inputs beside the photo streams for the people of any photo, by the providers of the model's training.

Photos of a user have no tables of points, depth and regions. The run records who provided those of its data set: what
is built in is computed in the same way, and a model is looked up by its name and must have the recorded sha256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emoface.datasets.stream_cache import to_photo_shares
from emoface.errors import SettingsError, WeightsError
from emoface.inference.depth import BOXES, DepthProvider, load_depth_provider, nearness_of_boxes, to_nearness
from emoface.inference.pose import (
    LANDMARKS,
    PoseProvider,
    find_people,
    load_pose_provider,
    points_of_faces,
    round_points,
)
from emoface.inference.regions import RegionProvider, load_region_provider, split_regions
from emoface.mter.array_inputs import ArrayInputs, DepthMaps, PlacedPeople, to_photo_points
from emoface.mter.inputs import InputForm
from emoface.mter.person_arrays import list_tables
from emoface.mter.runs import Run
from emoface.schema import DEPTH_TABLE, MAPS_FOLDER, POINTS_FILE, POSE_TABLE, REGIONS_TABLE
from emoface.storage.files import file_sha256
from emoface.storage.records import read_record
from emoface.storage.settings import File
from emoface.storage.weights import WeightsFile, find_weights
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo

_PHOTO = "photo"  # the name of the one photo, where a data set has one name per photo


PoseWeights = Annotated[
    File | None,
    Field(description="A file of the model that finds body points for emoticon, instead of looking its name up."),
]
DepthWeights = Annotated[
    File | None, Field(description="A file of the model that finds depth for emoticon, instead of looking its name up.")
]
RegionWeights = Annotated[
    File | None,
    Field(description="A file of the model that finds regions for affective-graph, instead of looking its name up."),
]
"""Options of a job on a trained run, which replace the places where models of its other inputs are looked up."""


@dataclass(frozen=True)
class ModelFiles:
    """Files of the models that provide inputs beside the photo streams, in place of looking their names up.

    Attributes:
        pose_weights: The model of body points.
        depth_weights: The model of depth.
        region_weights: The model of regions.
    """

    pose_weights: Path | None = None
    depth_weights: Path | None = None
    region_weights: Path | None = None


@dataclass(frozen=True)
class PhotoPeople:
    """The n people of a photo, whose inputs are computed.

    Attributes:
        body_xyxy: (n, 4) body boxes, pixels.
        face_xyxy: (n, 4) face boxes, pixels; nan without a face.
        landmarks: (n, 5, 2) landmarks of the face detector, pixels; nan where a person has none.
        face_conf: (n,) score of each face, 0-1; nan without landmarks.
    """

    body_xyxy: Float32Array
    face_xyxy: Float32Array
    landmarks: Float32Array
    face_conf: Float32Array


@dataclass(frozen=True)
class ArrayProviders:
    """What provides the inputs of a model beside the photo streams.

    Attributes:
        forms: The inputs, see ``Mter.array_inputs``.
        pose: The model of body points; None takes the landmarks of the faces.
        depth: The model of depth; None draws the body boxes.
        regions: The model of regions; None if the model reads no regions.
    """

    forms: Mapping[str, InputForm]
    pose: PoseProvider | None = None
    depth: DepthProvider | None = None
    regions: RegionProvider | None = None

    def compute(
        self, photo: Photo, people: PhotoPeople, sizes: Mapping[str, int], center_share: float = 1.0
    ) -> dict[str, NDArray[Any]]:
        """Computes the inputs of the people of a photo as those of a data set's people in an evaluation.

        Args:
            photo: (height, width, 3), RGB.
            people: All people of the photo, because some inputs tell of the others too.
            sizes: Side of each stream's input, pixels.
            center_share: See ``ContextInput``.

        Returns:
            As ``ArrayInputs.load``.
        """
        height, width = photo.shape[:2]
        n_people, needed = len(people.body_xyxy), list_tables(self.forms)
        inputs = ArrayInputs(
            self.forms,
            PlacedPeople(
                [_PHOTO] * n_people,
                np.full(n_people, width / height, np.float32),
                to_photo_shares(people.body_xyxy, photo),
                to_photo_shares(people.face_xyxy, photo),
            ),
            points=self._find_points(photo, people) if POSE_TABLE in needed else None,
            maps=DepthMaps(self._find_map(photo, people)[None], [0] * n_people) if DEPTH_TABLE in needed else None,
            regions=self._find_regions(photo),
        )
        return inputs.load(range(n_people), sizes, center_share=center_share)

    def _find_points(self, photo: Photo, people: PhotoPeople) -> Float32Array:
        """The points of the people as shares of the photo, (n, 133, 3)."""
        if self.pose is None:
            points = points_of_faces(people.landmarks, people.face_conf)
        else:
            points = find_people(self.pose, photo, people.body_xyxy)
        return to_photo_points(round_points(points), np.array(photo.shape[1::-1], np.float32))

    def _find_map(self, photo: Photo, people: PhotoPeople) -> NDArray[np.uint8]:
        """The map of depth, (256, 256)."""
        if self.depth is None:
            return nearness_of_boxes(people.body_xyxy, (photo.shape[1], photo.shape[0]))
        return to_nearness(self.depth.find(photo))

    def _find_regions(self, photo: Photo) -> dict[str, tuple[Float32Array, NDArray[np.float16]]] | None:
        return None if self.regions is None else {_PHOTO: split_regions(self.regions.find(photo))}


@dataclass(frozen=True)
class _Source:
    """A table of inputs: what it has, who may have provided it, and which job and setting belong to it."""

    content: str
    job: str
    setting: str
    built_in: str | None = None
    from_files: str | None = None


_SOURCES = {
    POSE_TABLE: _Source("points of people", "pose", "pose_weights", LANDMARKS, POINTS_FILE),
    DEPTH_TABLE: _Source("the depth of the photo", "depth", "depth_weights", BOXES, MAPS_FOLDER),
    REGIONS_TABLE: _Source("regions of the photo", "regions", "region_weights"),
}


def load_array_providers(run: Run, files: ModelFiles | None = None) -> ArrayProviders | None:
    """Loads what provides the inputs of a run's model beside the photo streams; None if it has none.

    Args:
        run: The run, or the description of an exported model.
        files: Files of models to use; None looks all of them up.

    Raises:
        SettingsError: The inputs of the run's data set were read from files, so that other photos have none; the run
            does not say who provided them; or a file is given of a model that the run does not use.
        WeightsError: A model is not on this machine, or is another one.
    """
    files = files or ModelFiles()
    forms = run.array_inputs
    found = {
        table: _find_model(run, table, getattr(files, source.setting)) if table in list_tables(forms) else None
        for table, source in _SOURCES.items()
    }
    for table, source in _SOURCES.items():
        given = getattr(files, source.setting)
        if given is not None and found[table] is None:
            raise SettingsError(
                f"{given}: given as {source.setting}, but {run.path / run.settings_name} says that {run.model_name} "
                f"reads {source.content} from no model; leave it out"
            )
    if not forms:
        return None
    pose, depth, regions = (found[table] for table in (POSE_TABLE, DEPTH_TABLE, REGIONS_TABLE))
    return ArrayProviders(
        forms,
        pose=None if pose is None else load_pose_provider(pose.name, pose.path),
        depth=None if depth is None else load_depth_provider(depth.name, depth.path),
        regions=None if regions is None else load_region_provider(regions.name, regions.path),
    )


def _find_model(run: Run, table: str, given: Path | None) -> WeightsFile | None:
    """Finds the model that provided a table; None if the provider is built in."""
    source, facts = _SOURCES[table], run.array_tables.get(table, {})
    described = run.path / run.settings_name
    providers, digests = facts.get("providers", []), facts.get("provider_sha256", {})
    if len(providers) != 1:
        raise SettingsError(
            f"{described}: {run.model_name} reads {source.content}, and expected is one provider of them, found "
            f"{', '.join(providers) or 'none'}; train again, or evaluate a data set with 'emoface evaluate'"
        )
    (name,) = providers
    if name == source.from_files:
        raise SettingsError(
            f"{described}: {run.model_name} reads {source.content}, which were read from a {name} and have no provider "
            "for other photos; its predictions of a data set are written by 'emoface evaluate'"
        )
    if name not in digests:
        if name == source.built_in:
            return None
        raise SettingsError(
            f"{described}: does not say which file of '{name}' found {source.content}; the run is of an earlier "
            "emoface, train again"
        )
    return _find_file(run, source, name, digests[name], given)


def _find_file(run: Run, source: _Source, name: str, sha256: str, given: Path | None) -> WeightsFile:
    """Finds the file of a model: the given one, that of its name, or the one that the data set's job read."""

    def describe_other(found: WeightsFile) -> str:
        return f"{found.path}: sha256 is {found.sha256[:12]}..., expected {sha256[:12]}... of '{name}'"

    needs = f"{run.model_name} reads {source.content} as the model '{name}' finds them"
    if given is not None:
        found = find_weights(name, given)
        if found.sha256 != sha256:
            raise WeightsError(f"{describe_other(found)}; {needs}, give the file that the run was trained with")
        return found
    try:
        found = find_weights(name)
    except WeightsError as error:
        reason = str(error)
    else:
        if found.sha256 == sha256:
            return found
        reason = describe_other(found)
    recorded = _recorded_file(run, source.job)
    if recorded is not None and recorded.is_file() and file_sha256(recorded) == sha256:
        return find_weights(name, recorded)
    if recorded is not None:
        reason += f"; nor is it at {recorded}, where 'emoface {source.job}' read it"
    option = f"--{source.setting.replace('_', '-')}"
    raise WeightsError(f"{needs}, and it is not here: {reason}; or give its file with {option} FILE")


def _recorded_file(run: Run, job: str) -> Path | None:
    """The model file that the job beside the run's manifest was given; None if it had none, or is not on this disk."""
    manifest = run.manifest_path if "path" in run.settings["manifest"] else None
    record = read_record(manifest.parent, job) if isinstance(manifest, Path) else None
    weights = None if record is None else record.settings.get("weights")
    return None if weights is None else Path(weights)
