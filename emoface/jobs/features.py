"""The features job: computes the features of a frozen backbone for the people of a data set, once.

They are kept beside the stream cache, see ``emoface.mter.features``; ``emoface probe`` fits a head on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from emoface.datasets.manifest import Manifest, read_manifest
from emoface.datasets.stream_cache import find_cache_dir
from emoface.mter.features import BackboneFacts, complete_features, find_feature_folder, parse_streams
from emoface.mter.names import STREAMS
from emoface.progress import SILENT, Progress
from emoface.schema import SPLITS
from emoface.storage.records import JobRecord, find_current, finish_job, hash_inputs
from emoface.storage.settings import Device, File, FolderOrUrl, Seed, Settings, TextForm


class FeaturesConfig(Settings):
    """Settings of the features job."""

    manifest: File
    """The data set's ``manifest.json``."""
    backbone: str
    """Name of the backbone: resnet18, mobilenet_v2, timm:NAME, torchvision:NAME or open_clip:NAME (with
    --weights library open_clip:NAME@TAG)."""
    weights: str
    """Weights of the backbone: a file; library for those that the library itself provides, downloaded if needed; or
    random for random weights, from which nothing was learned."""
    streams: Annotated[tuple[str, ...], BeforeValidator(parse_streams), TextForm("face,body,context")] = STREAMS
    """Streams whose features are computed, separated by commas."""
    seed: Seed = 0
    """Seed of random weights."""
    device: Device = "auto"
    """Device on which the network runs; auto takes CUDA where there is one."""
    images: FolderOrUrl | None = None
    """Folder of the photos, or its URL, if they are no longer where the manifest says."""
    allow_missing: bool = False
    """Go on although at least 95 % of the photos of a split are missing."""
    cache: FolderOrUrl | None = None
    """Folder of the caches, or the URL of a cache of decoded photos that several machines share; by default
    stream_cache beside the manifest. The features are in features-KEY in the folder, in no shared cache."""


def run_features(config: FeaturesConfig, progress: Progress = SILENT) -> JobRecord:
    """Computes the features of all splits; those that are finished are not computed again.

    Args:
        config: Settings of the job.
        progress: Receives one step per square.

    Returns:
        The job's record, whose ``info`` has the folder and the backbone.

    Raises:
        ModuleNotFoundError: The library of the backbone is not installed.
        SettingsError: No backbone has that name, or its library cannot build it.
        ImageError: The photos are missing, or nearly all, and ``allow_missing`` is not set.
        TableError: The data set does not match its manifest, or none of its people is usable.
        WeightsError: The file of weights is missing, or of another network.
    """
    from emoface.learning.devices import pick_device
    from emoface.mter.backbones import load_backbone

    manifest = read_manifest(config.manifest, check_sha256=True, images=config.images)
    backbone = load_backbone(
        config.backbone, config.weights, seed=config.seed, device=pick_device(config.device), progress=progress
    )
    facts = backbone.facts
    if facts.is_random:
        progress.note(f"{facts.name}: the weights are random; a probe on these features is a baseline and no more")
    folder = find_feature_folder(manifest, facts, find_cache_dir(manifest, config.cache))
    inputs = _list_inputs(manifest, facts)
    current = find_current("features", config, folder.path, module=__name__, inputs=inputs)
    if current is not None:
        progress.note(f"{folder.path}: these features are current; nothing to do")
        return current
    caches = complete_features(
        folder,
        manifest,
        SPLITS,
        config.streams,
        lambda: backbone,
        cache=config.cache,
        allow_missing=config.allow_missing,
        progress=progress,
    )
    return finish_job(
        "features",
        config,
        folder.path,
        module=__name__,
        inputs=inputs,
        outputs=folder.list_files(),
        counts={
            "backbone": facts.describe(),
            "features": facts.n_features,
            "input_size": facts.input_size,
            "people": {split: len(cache) for split, cache in caches.items()},
            "faces": {split: int(cache.people.has_face.sum()) for split, cache in caches.items()},
            "left_out": {split: cache.counts["people"] - len(cache) for split, cache in caches.items()},
        },
        info={"folder": str(folder.path), "backbone": facts.model_dump(mode="json")},
    )


def _list_inputs(manifest: Manifest, facts: BackboneFacts) -> dict[str, str]:
    """The files that the features depend on; the photos are in the name of the folder."""
    weights = [] if facts.path is None else [Path(facts.path)]
    splits = {str(manifest.split_path(split)): one.sha256 for split, one in manifest.splits.items()}
    return {**hash_inputs(weights), **splits}
