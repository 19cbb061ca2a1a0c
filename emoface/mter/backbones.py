"""Backbones by name: our own networks, and those of timm, torchvision and open_clip; frozen ones as functions.

A name is ``resnet18`` or ``mobilenet_v2``, or ``LIBRARY:NAME``. A library's own settings give the side of the input and
its normalisation. The libraries are imported only when one of their names is asked for; all that is needed of each is
in one function below, which returns a ``BuiltNetwork``.

The weights are those of a file, those that the library itself downloads, or random ones, and each only where it is
asked for. Files are read as tensors only; no code in a pickle is executed. Every tensor of the network must be in the
file.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.errors import SettingsError, WeightsError, did_you_mean
from emoface.mter.features import FILE, LIBRARY, RANDOM, BackboneFacts
from emoface.mter.initial_weights import NONE
from emoface.mter.library_backbone import run_and_count
from emoface.mter.mobilenet import STAGES, MobileNetV2SE
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD
from emoface.mter.pixels import fit_input
from emoface.mter.pretrained import read_public_weights
from emoface.mter.resnet import ResNet18
from emoface.mter.weight_files import read_weights
from emoface.progress import SILENT, Progress
from emoface.storage.files import file_sha256
from emoface.storage.weights import fetch_weights, find_weights, has_weights
from emoface.version import __version__
from emoface.vision.arrays import Float32Array
from emoface.vision.crops import Photo

_OWN_SIZE = 224
_MOBILENET_FEATURES = 1280
_CARDS = {"resnet18": "resnet18-f37072fd", "mobilenet_v2": "mobilenet_v2-b0353104"}
_COUNTER = "num_batches_tracked"
_PACKAGES = {"timm": "timm", "torchvision": "torchvision", "open_clip": "open_clip_torch"}
"""Per library, the name of its package."""
_MOST_SHOWN = 200
"""Characters of a library's own error that are shown; open_clip lists all of its models."""
_LIBRARY_ERRORS = (RuntimeError, ValueError, LookupError, OSError, AttributeError, TypeError)
"""What the libraries raise for a model that they do not know, or whose weights they cannot get."""


@dataclass(frozen=True)
class BuiltNetwork:
    """A network as a library builds it, without the layer that predicts the classes of its own training.

    Attributes:
        network: The network, (b, 3, side, side) normalised RGB to (b, n_features).
        input_size: Side of its square input, pixels.
        mean: RGB, 0-1, subtracted from a photo.
        std: RGB, 0-1, the photo is divided by it after the subtraction.
        prefix: What the names of the network's tensors begin with in a file of weights.
    """

    network: nn.Module
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    prefix: str = ""


class FrozenBackbone:
    """A network whose weights do not change, as a function from pixels to features.

    Attributes:
        facts: All that determines its features.
        network: The network, (b, 3, side, side) normalised RGB to (b, n_features).
    """

    def __init__(self, built: BuiltNetwork, facts: BackboneFacts, device: torch.device) -> None:
        self.facts = facts
        self.network = built.network.eval().requires_grad_(False).to(device)
        self._device = device
        self._mean = torch.tensor(built.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(built.std, device=device).view(1, 3, 1, 1)

    @torch.inference_mode()
    def compute(self, photos: list[Photo]) -> Float32Array:
        """Computes the features of b squares.

        Args:
            photos: (side, side, 3) uint8 RGB each, scaled to the input of the network by ``dataset.fit_input``.

        Returns:
            (b, n_features).
        """
        side = self.facts.input_size
        pixels = np.stack([fit_input(photo, side) for photo in photos])
        return np.asarray(self.network(self._normalise(pixels)).float().cpu().numpy(), np.float32)

    def _normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        x = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2).float() / 255
        return (x - self._mean) / self._std


def load_backbone(
    name: str,
    weights: str,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress = SILENT,
) -> FrozenBackbone:
    """Loads a frozen backbone.

    Args:
        name: ``resnet18``, ``mobilenet_v2``, ``timm:NAME``, ``torchvision:NAME`` or ``open_clip:NAME``.
        weights: A file of weights; ``library`` for those that the library itself provides, which it may download (of
            our own networks the file of their card; of open_clip those of the tag, as ``open_clip:NAME@TAG``); or
            ``random``.
        seed: Seed of random weights.
        device: Device of the network; None is the CPU.
        progress: Reports the progress of a download.

    Raises:
        ModuleNotFoundError: The library is not installed.
        SettingsError: The name is unknown, or the library cannot be imported or does not build it.
        WeightsError: The file is missing or damaged, or lacks a tensor of the network.
    """
    library, model = _split_name(name)
    path: Path | None = None
    if weights == LIBRARY and not library:
        card = _CARDS[model]
        path = (find_weights(card) if has_weights(card) else fetch_weights(card, progress)).path
    elif weights not in (LIBRARY, RANDOM):
        path = find_weight_file(weights, RANDOM)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build_network(name, is_pretrained=weights == LIBRARY)
    if path is not None:
        fill_network(built, path, name)
    n_features, n_macs = measure_features(name, built.network, built.input_size)
    facts = BackboneFacts(
        name=name,
        weights={LIBRARY: LIBRARY, RANDOM: RANDOM}.get(weights, FILE),
        path=None if path is None else str(path.resolve()),
        sha256=hash_tensors(built.network) if path is None else file_sha256(path),
        seed=seed if weights == RANDOM else None,
        input_size=built.input_size,
        mean=built.mean,
        std=built.std,
        n_features=n_features,
        n_macs=n_macs,
        n_parameters=sum(parameter.numel() for parameter in built.network.parameters()),
        software=describe_software(name),
    )
    return FrozenBackbone(built, facts, device or torch.device("cpu"))


def reload_backbone(
    facts: BackboneFacts, *, device: torch.device | None = None, progress: Progress = SILENT
) -> FrozenBackbone:
    """Loads the backbone that features or a probe were made with.

    Args:
        facts: The backbone, as it was recorded.
        device: Device of the network; None is the CPU.
        progress: Reports the progress of a download.

    Raises:
        WeightsError: Its weights are not what they were. For other errors see ``load_backbone``.
    """
    backbone = load_backbone(
        facts.name, facts.path or facts.weights, seed=facts.seed or 0, device=device, progress=progress
    )
    if backbone.facts.identity() != facts.identity():
        raise WeightsError(
            f"{facts.path or facts.name}: the weights or the settings of {facts.name} have changed since (sha256 is "
            f"{backbone.facts.sha256[:12]}..., was {facts.sha256[:12]}...); restore them, or run 'emoface features' "
            "and 'emoface probe' again"
        )
    return backbone


def build_network(name: str, *, is_pretrained: bool = False) -> BuiltNetwork:
    """Builds a network by name, with randomly initialised weights or those that its library provides.

    Args:
        name: See ``load_backbone``.
        is_pretrained: Whether the library loads the weights that it provides, which it may download; our own networks
            stay random, and are a ``blocks.Backbone``.

    Raises:
        ModuleNotFoundError: The library is not installed.
        SettingsError: The name is unknown, or the library cannot be imported or does not build it.
    """
    library, model = _split_name(name)
    builders = {"": _build_own, "timm": _build_timm, "torchvision": _build_torchvision, "open_clip": _build_open_clip}
    return builders[library](model, is_pretrained)


def _split_name(name: str) -> tuple[str, str]:
    """The library, empty for our own networks, and the name in it."""
    library, _, model = name.rpartition(":")
    if library not in ("", *_PACKAGES) or not model or (not library and model not in _CARDS):
        known = (*_CARDS, *(f"{one}:NAME" for one in _PACKAGES))
        raise SettingsError(f"no backbone is called '{name}'{did_you_mean(name, known)}")
    return library, model


def describe_software(name: str) -> str:
    """Name and version of the library that builds a network."""
    library, _ = _split_name(name)
    return f"{library} {_version(library)}" if library else f"emoface {__version__}"


def find_weight_file(source: str, random: str = NONE) -> Path:
    """Finds a file of weights for a backbone.

    Args:
        source: Path of the file.
        random: What the setting is called that chooses random weights.

    Raises:
        WeightsError: There is no such file.
    """
    path = Path(source)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weight file; give a file, or '{LIBRARY}' or '{random}'")
    return path


def _build_own(name: str, _is_pretrained: bool) -> BuiltNetwork:
    network: nn.Module = ResNet18(n_features=None)
    if name == "mobilenet_v2":
        plain = tuple(replace(stage, reduction=None) for stage in STAGES)
        network = MobileNetV2SE(plain, n_features=_MOBILENET_FEATURES)
    return BuiltNetwork(network, _OWN_SIZE, IMAGENET_MEAN, IMAGENET_STD)


def _build_timm(name: str, pretrained: bool) -> BuiltNetwork:
    """Builds a model of timm without its classifier; ``num_classes=0`` gives the pooled features."""
    timm = _import("timm")

    def build() -> BuiltNetwork:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0)
        config = timm.data.resolve_model_data_config(network)
        return BuiltNetwork(network, _square(config["input_size"][1:]), _rgb(config["mean"]), _rgb(config["std"]))

    return _build("timm", name, build)


def _build_torchvision(name: str, pretrained: bool) -> BuiltNetwork:
    """Builds a model of torchvision without its last linear layer, with the transforms of its default weights."""
    models = _import("torchvision").models

    def build() -> BuiltNetwork:
        default = models.get_model_weights(name).DEFAULT
        network = models.get_model(name, weights=default if pretrained else None)
        last = [place for place, part in network.named_modules() if isinstance(part, nn.Linear)]
        if not last:
            raise ValueError("it ends in no linear layer")
        parent, _, child = last[-1].rpartition(".")
        setattr(network.get_submodule(parent), child, nn.Identity())
        transforms = default.transforms()
        return BuiltNetwork(network, _square(transforms.crop_size), _rgb(transforms.mean), _rgb(transforms.std))

    return _build("torchvision", name, build)


def _build_open_clip(name: str, pretrained: bool) -> BuiltNetwork:
    """Builds the image tower of a model of open_clip, whose output is the embedding before it is normalised."""
    open_clip = _import("open_clip")
    model_name, _, tag = name.partition("@")
    if pretrained and not tag:
        raise SettingsError(
            f"open_clip:{name} does not say which weights; name their tag, as open_clip:{name}@openai, or give a "
            "file of weights. 'open_clip.list_pretrained()' lists the tags"
        )

    def build() -> BuiltNetwork:
        model = open_clip.create_model(model_name, pretrained=tag if pretrained else None)
        config = open_clip.get_model_preprocess_cfg(model)
        size = config["size"]
        return BuiltNetwork(
            model.visual,
            size if isinstance(size, int) else _square(size),
            _rgb(config["mean"]),
            _rgb(config["std"]),
            "visual.",
        )

    return _build("open_clip", name, build)


def _import(library: str) -> ModuleType:
    """Imports a library; a missing one is a ``ModuleNotFoundError`` that the command line explains.

    Raises:
        ModuleNotFoundError: The library is not installed.
        SettingsError: It is installed and cannot be imported, as when it was built for another torch.
    """
    try:
        return importlib.import_module(library)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            raise
        raise SettingsError(
            f"{library} {_version(library)} cannot be imported beside torch {torch.__version__} ({error}); install "
            "versions of both that fit each other"
        ) from error


def _build(library: str, name: str, build: Callable[[], BuiltNetwork]) -> BuiltNetwork:
    try:
        return build()
    except _LIBRARY_ERRORS as error:
        raise SettingsError(
            f"{library} {_version(library)} does not build '{name}' ({str(error)[:_MOST_SHOWN]}); check the name, and "
            "for its own weights the network connection"
        ) from error


def fill_network(built: BuiltNetwork, path: Path, name: str) -> tuple[str, ...]:
    """Copies the tensors of a file into a network, which must all be there; tensors of its classifier are left out.

    Args:
        built: The network; its weights are changed in place.
        path: The file.
        name: Name of the network in errors.

    Returns:
        Names of the tensors of the file that the network does not have.

    Raises:
        WeightsError: A tensor is missing or has another shape.
    """
    is_safetensors = path.suffix == ".safetensors"
    state: Mapping[str, Tensor] = read_weights(path) if is_safetensors else read_public_weights(path)
    own = {key: value for key, value in built.network.state_dict().items() if not key.endswith(_COUNTER)}
    for key, value in own.items():
        found = state.get(built.prefix + key)
        if found is None or found.shape != value.shape:
            what = "is missing" if found is None else f"has the shape {tuple(found.shape)}"
            raise WeightsError(
                f"{path}: the tensor {built.prefix}{key} of {name} {what}, expected {tuple(value.shape)}; give the "
                "weights of this network, which must have all of its tensors"
            )
    built.network.load_state_dict({key: state[built.prefix + key] for key in own}, strict=False)
    taken = {built.prefix + key for key in own}
    return tuple(sorted(key for key in state if key not in taken and not key.endswith(_COUNTER)))


def measure_features(name: str, network: nn.Module, side: int) -> tuple[int, int]:
    """Finds the width of a network's features and its MACs by one forward pass in evaluation mode, in which it stays.

    Args:
        name: Name of the network in errors.
        network: The network.
        side: Side of its input, pixels.

    Returns:
        The width of the features, and the MACs for one photo.

    Raises:
        SettingsError: Its output is not one row of features per photo.
    """
    output, n_macs = run_and_count(network.eval(), (3, side, side))
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise SettingsError(f"{name} returns {found}, expected one row of features per photo; choose another backbone")
    return int(output.shape[1]), n_macs


def hash_tensors(network: nn.Module) -> str:
    """Computes the sha256 of a network's tensors, with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name}\0".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _square(sides: Any) -> int:
    """The side of a square input; networks with other inputs do not fit the stored squares."""
    numbers = [int(side) for side in sides]
    if len(set(numbers)) != 1:
        raise ValueError(f"its input is {numbers} pixels, expected a square")
    return numbers[0]


def _rgb(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise ValueError(f"its normalisation has {len(numbers)} channels, expected 3")
    return numbers


def _version(library: str) -> str:
    try:
        return version(_PACKAGES[library])
    except PackageNotFoundError:
        return "of unknown version"
