"""The networks that take the place of a model's own, per stream: as a setting, and as a run records them.

A setting is a list of ``STREAM=NAME``, where a name is one of ``emoface.mter.backbones``. Importable without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from emoface.errors import SettingsError
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD, STREAMS


class StreamBackbone(BaseModel):
    """All that rebuilds the backbone of a stream, without its weights.

    Attributes:
        name: Name of the backbone, such as ``timm:resnet50``.
        software: Name and version of the library that built it; None for our own networks.
        input_size: Side of its square input, pixels; None for our own networks, which take any.
        mean: RGB, 0-1, subtracted from a photo.
        std: RGB, 0-1, the photo is divided by it after the subtraction.
        n_features: Width of its features.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    software: str | None = None
    input_size: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    n_features: int


def parse_backbones(backbones: str | Sequence[str]) -> tuple[str, ...]:
    """Reads the backbones of streams.

    Args:
        backbones: As a list, or as one text with commas between the parts.

    Raises:
        SettingsError: A part is no ``STREAM=NAME``, or a stream is named twice.

    Example:
        >>> parse_backbones("face=resnet18, context=timm:resnet50")
        ('face=resnet18', 'context=timm:resnet50')
    """
    given = backbones.split(",") if isinstance(backbones, str) else backbones
    parts = tuple(part.strip() for part in given)
    for part in parts:
        stream, _, name = part.partition("=")
        if stream not in STREAMS or not name:
            raise SettingsError(
                f"backbone is '{part}', expected STREAM=NAME such as context=timm:resnet50, with {', '.join(STREAMS)} "
                "for the stream"
            )
    streams = [part.partition("=")[0] for part in parts]
    if twice := [stream for stream in streams if streams.count(stream) > 1]:
        raise SettingsError(f"backbone gives the {twice[0]} stream two networks: {', '.join(parts)}; give one")
    return parts


def backbone_names(backbones: Sequence[str]) -> dict[str, str]:
    """The name of the backbone of each stream that has one of its own.

    Args:
        backbones: As ``parse_backbones`` gives them.
    """
    return {stream: name for stream, _, name in (part.partition("=") for part in backbones)}


def describe_backbones(backbones: Mapping[str, StreamBackbone]) -> str:
    """Describes the networks that take the place of a model's own, for pages and tables; empty without any.

    Example:
        >>> describe_backbones({"context": StreamBackbone(name="timm:resnet50", n_features=2048)})
        'context timm:resnet50'
    """
    return ", ".join(f"{stream} {backbones[stream].name}" for stream in STREAMS if stream in backbones)
