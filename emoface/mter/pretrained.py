"""Public weights for the streams' backbones: torchvision's ImageNet files and ResNet18 of Places365.

The layers of the networks have the names of those files. A tensor is copied if its name and shape agree, and the report
lists those that were not copied, with reasons. Files are read as tensors only; no code in a pickle is executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from emoface.errors import SettingsError, WeightsError, did_you_mean
from emoface.learning.checkpoints import read_tensors
from emoface.mter.attention_branch import AttentionResNet18
from emoface.mter.base import Mter
from emoface.mter.blocks import Backbone
from emoface.mter.features import LIBRARY
from emoface.mter.initial_weights import AUTO, DATA_SETS, NONE, is_file_source, named_streams, source_of
from emoface.mter.library_backbone import LibraryBackbone
from emoface.mter.mobilenet import MobileNetV2SE
from emoface.mter.resnet import ResNet18
from emoface.progress import SILENT, Progress
from emoface.storage.weights import WeightsFile, fetch_weights, find_weights

PRETRAINED: dict[str, dict[type[Backbone], str]] = {
    "imagenet": {
        MobileNetV2SE: "mobilenet_v2-b0353104",
        ResNet18: "resnet18-f37072fd",
        AttentionResNet18: "resnet18-f37072fd",
    },
    "places365": {ResNet18: "resnet18_places365", AttentionResNet18: "resnet18_places365"},
}
"""Per data set, the weights card of each network. ``imagenet`` has the MobileNetV2 weights of the time of the thesis;
the later ``mobilenet_v2-7ebf99e0`` can be given by ``files``."""

_COUNTER = "num_batches_tracked"
_PREFIX = "module."
_MIN_SHARE_TAKEN = 0.5


@dataclass(frozen=True)
class NotTaken:
    """A tensor of the network that keeps its values.

    Attributes:
        name: Name of the tensor in the network.
        reason: ``not in the file``, or the two shapes.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class TakenWeights:
    """Report of the weights that a network took from a file.

    BatchNorm's counters of batches are not reported: files of early torch have none, and emoface does not use them.

    Attributes:
        network: Name of the stream whose network was filled.
        source: Name of the file.
        sha256: Checksum of the file, or of the tensors that a library provided; empty for those of a run.
        n_tensors: Number of copied tensors.
        n_parameters: Number of values in them, including BatchNorm's running statistics.
        not_taken: Tensors of the network that keep their values.
        unused: Tensors of the file that the network does not have.
    """

    network: str
    source: str
    sha256: str
    n_tensors: int
    n_parameters: int
    not_taken: tuple[NotTaken, ...]
    unused: tuple[str, ...]


def load_pretrained(
    model: Mter,
    data_set: str = "imagenet",
    *,
    files: Mapping[str, Path] | None = None,
    fetch: bool = False,
    progress: Progress = SILENT,
) -> tuple[TakenWeights, ...]:
    """Fills a model's backbones with public weights.

    Args:
        model: The model; its weights are changed in place.
        data_set: ``imagenet`` for every stream; ``places365`` for the context stream and ``imagenet`` for the others,
            since Places365 contains scenes and no people.
        files: Per stream, a file to use instead of that of the card.
        fetch: Whether to download files that are not on this machine; otherwise a missing file is an error that says
            how to get it.
        progress: Reports the progress of downloads.

    Returns:
        One report per stream.

    Raises:
        SettingsError: The data set is unknown, or no public weights exist for a stream's network.
        WeightsError: A file is missing or damaged, or belongs to another network.
    """
    if data_set not in PRETRAINED:
        raise SettingsError(f"no public weights are called '{data_set}'{did_you_mean(data_set, PRETRAINED)}")
    given = dict(files or {})
    if unknown := sorted(given.keys() - set(model.streams)):
        raise SettingsError(f"weights are given for '{unknown[0]}', {model.name} has {', '.join(model.streams)}")
    backbones = model.backbones()
    found = {
        stream: _find(model, stream, backbone, data_set, given.get(stream), fetch, progress)
        for stream, backbone in backbones.items()
    }
    states = {one.path: read_public_weights(one.path) for one in found.values()}
    return tuple(
        take_weights(backbones[stream], states[one.path], stream, one.path.name, one.sha256)
        for stream, one in found.items()
    )


def load_initial_weights(
    model: Mter,
    sources: Sequence[str],
    progress: Progress = SILENT,
    *,
    auto_weights: Mapping[str, str] | None = None,
) -> tuple[TakenWeights, ...]:
    """Fills each stream's backbone from its source; no stream is left randomly initialised unless its source says so.

    Networks of a library are left alone: they are built with their weights, see ``stream_networks``.

    Args:
        model: The model; its weights are changed in place.
        sources: As ``initial_weights.parse_pretrained`` gives them. The file that ``auto`` stands for, and that of
            ``library``, which for our own networks is ``imagenet``, is downloaded if it is not on this machine.
        progress: Reports the progress of downloads.
        auto_weights: By stream, what ``auto`` stands for; the ImageNet file of the network for streams not named.

    Returns:
        One report per stream that took weights.

    Raises:
        SettingsError: A source is given for a stream that the model lacks, or no public weights exist for a network.
        WeightsError: A file is missing or damaged, or belongs to another network.
    """
    backbones = model.backbones()
    for stream in named_streams(sources):
        if stream not in backbones:
            raise SettingsError(f"weights are given for '{stream}', {model.name} has {', '.join(backbones)}")
    states: dict[Path, dict[str, Tensor]] = {}
    reports: list[TakenWeights] = []
    for stream, backbone in backbones.items():
        named = source_of(sources, stream)
        source = (auto_weights or {}).get(stream, "imagenet") if named == AUTO else named
        if source == NONE or isinstance(backbone, LibraryBackbone):
            continue
        given = Path(source) if is_file_source(source) else None
        data_set = source if source in DATA_SETS else "imagenet"
        try:
            found = _find(model, stream, backbone, data_set, given, named in (AUTO, LIBRARY), progress)
            if found.path not in states:
                states[found.path] = read_public_weights(found.path)
            reports.append(take_weights(backbone, states[found.path], stream, found.path.name, found.sha256))
        except (WeightsError, SettingsError) as error:
            raise type(error)(
                f"{error}. The {stream} stream of {model.name} starts from '{named}': give a file with --pretrained "
                f"{stream}=FILE, or start from randomly initialised weights with --pretrained {stream}=none"
            ) from error
    return tuple(reports)


def take_stream_weights(model: Mter, state: Mapping[str, Tensor], source: str = "") -> tuple[TakenWeights, ...]:
    """Copies the streams that a model shares with another MTER model, backbone and head: ``task1`` into ``mter2``.

    Args:
        model: The model; its weights are changed in place.
        state: State dict of the other model.
        source: Name of the other weights in the report.

    Returns:
        One report per shared stream, all of whose tensors are copied.

    Raises:
        WeightsError: The models have no stream in common, or a shared stream has a different network.
    """
    reports, own = [], {name.split(".")[1] for name in model.state_dict() if name.startswith("stream.")}
    for stream in model.streams:
        prefix = f"stream.{stream}."
        part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if not part or stream not in own:
            continue
        report = take_weights(model.get_submodule(prefix[:-1]), part, stream, source)
        if report.not_taken:
            first = report.not_taken[0]
            raise WeightsError(
                f"{source or 'the given weights'}: stream '{stream}' is not that of {model.name} "
                f"({prefix}{first.name}: {first.reason}); use weights of a model with the same '{stream}' network"
            )
        reports.append(report)
    if not reports:
        raise WeightsError(
            f"{source or 'the given weights'}: no stream of {model.name} ({', '.join(model.streams)}) is in them; use "
            "weights of a model that shares one, as task1 does with mter2"
        )
    return tuple(reports)


def read_public_weights(path: Path) -> dict[str, Tensor]:
    """Reads a state dict, or the ``state_dict`` of a checkpoint, as tensors only.

    The prefix ``module.`` of data-parallel training is dropped. The file format of torch 0.1 under Python 2, which
    Places365 uses, is supported too.

    Args:
        path: A ``.pth`` or ``.pt`` file, or a ``.pth.tar`` file that is not a tar archive.

    Raises:
        WeightsError: The file is damaged, or contains anything but tensors and plain values.
    """
    content = read_tensors(path, "fetch it again, or save its state dict with torch.save")
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    named = content.items() if isinstance(content, Mapping) else ()
    state = {
        name.removeprefix(_PREFIX): value
        for name, value in named
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not state:
        raise WeightsError(f"{path}: holds no named tensors, expected a state dict")
    return state


def take_weights(
    network: nn.Module, state: Mapping[str, Tensor], name: str, source: str = "", sha256: str = ""
) -> TakenWeights:
    """Copies every tensor whose name and shape agree into a network.

    Args:
        network: The network; its weights are changed in place.
        state: Tensors by name.
        name: Name of the network in the report.
        source: Name of the file in the report.
        sha256: Checksum of the file.

    Raises:
        WeightsError: Fewer than half of the network's tensors agree, so the file belongs to another network. No tensor
            is copied then.
    """
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(_COUNTER)}
    in_file = {key: value for key, value in state.items() if not key.endswith(_COUNTER)}
    taken, not_taken = {}, []
    for key, value in own.items():
        if key not in in_file:
            not_taken.append(NotTaken(key, "not in the file"))
        elif in_file[key].shape != value.shape:
            reason = f"shape {tuple(value.shape)}, in the file {tuple(in_file[key].shape)}"
            not_taken.append(NotTaken(key, reason))
        else:
            taken[key] = in_file[key]
    if len(taken) < _MIN_SHARE_TAKEN * len(own):
        raise WeightsError(
            f"{source or 'the given weights'}: {len(taken)} of the {len(own)} tensors of the {name} stream's "
            f"{type(network).__name__} are in them by name and shape; they are of another network"
        )
    network.load_state_dict(taken, strict=False)
    return TakenWeights(
        network=name,
        source=source,
        sha256=sha256,
        n_tensors=len(taken),
        n_parameters=sum(value.numel() for value in taken.values()),
        not_taken=tuple(not_taken),
        unused=tuple(sorted(in_file.keys() - own.keys())),
    )


def _find(
    model: Mter,
    stream: str,
    backbone: Backbone,
    data_set: str,
    given: Path | None,
    fetch: bool,
    progress: Progress,
) -> WeightsFile:
    wanted = data_set if stream == "context" else "imagenet"
    card = PRETRAINED[wanted].get(type(backbone))
    if given is not None:
        return find_weights(given.stem, given)
    if card is None:
        raise SettingsError(
            f"no public {wanted} weights fit the {stream} stream of {model.name} ({type(backbone).__name__}); train it "
            "without pretrained weights, or choose another data set or model"
        )
    try:
        return find_weights(card)
    except WeightsError:
        if not fetch:
            raise
    return fetch_weights(card, progress)
