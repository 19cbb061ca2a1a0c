"""Builds the networks that take the place of a model's own, per stream, and loads the weights that they start from.

Our own networks by name take their initial weights as all others of ours do, see ``pretrained.load_initial_weights``;
those of a library take theirs here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from emoface.errors import SettingsError
from emoface.mter.backbones import (
    BuiltNetwork,
    build_network,
    describe_software,
    fill_network,
    find_weight_file,
    hash_tensors,
    measure_features,
)
from emoface.mter.blocks import Backbone
from emoface.mter.features import LIBRARY
from emoface.mter.initial_weights import AUTO, DATA_SETS, NONE, source_of
from emoface.mter.library_backbone import LibraryBackbone
from emoface.mter.networks import STREAMS_MODELS
from emoface.mter.pretrained import TakenWeights
from emoface.mter.stream_backbones import StreamBackbone
from emoface.storage.files import file_sha256

_REFUSED_SIZE = (RuntimeError, AssertionError, ValueError, IndexError)
"""What networks raise for an input of a side that they do not take."""
_MOST_SHOWN = 200


@dataclass(frozen=True)
class StreamNetwork:
    """The network of one stream with its initial weights.

    Attributes:
        facts: All that rebuilds it, without its weights.
        backbone: The network.
        taken: The weights that it took; None for random ones, and for our own networks, which take theirs later.
    """

    facts: StreamBackbone
    backbone: Backbone
    taken: TakenWeights | None = None


def load_stream_networks(
    model: str,
    names: Mapping[str, str],
    sources: Sequence[str],
    *,
    sides: Mapping[str, int | None] | None = None,
    seed: int = 0,
) -> dict[str, StreamNetwork]:
    """Builds the given networks of a model's streams with their initial weights.

    Args:
        model: Name of the model.
        names: By stream, the name of its backbone.
        sources: The sources of initial weights, as ``initial_weights.parse_pretrained`` gives them. For the network of
            a library ``auto`` is ``library``: the weights that the library itself provides and may download.
        sides: By stream, the side of its input in pixels; None and streams not named have that of the library.
        seed: Seed of random weights.

    Raises:
        ModuleNotFoundError: A library is not installed.
        SettingsError: The model has no such stream, a name is unknown, or a network does not take inputs of its side
            or cannot be rebuilt without its weights.
        WeightsError: A file is missing or damaged, or lacks a tensor of the network.
    """
    _check_streams(model, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {
            stream: _load(f"the {stream} stream of {model}", stream, name, sources, (sides or {}).get(stream))
            for stream, name in names.items()
        }


def rebuild_backbones(facts: Mapping[str, StreamBackbone]) -> dict[str, Backbone]:
    """Builds the networks of streams as a run recorded them, with randomly initialised weights.

    Raises:
        ModuleNotFoundError: A library is not installed.
        SettingsError: The library that is installed does not build a network.
    """
    return {stream: _to_backbone(one, build_network(one.name)) for stream, one in facts.items()}


def _check_streams(model: str, names: Mapping[str, str]) -> None:
    if names and model not in STREAMS_MODELS:
        raise SettingsError(
            f"the networks of {model} cannot be replaced; --backbone is for {', '.join(STREAMS_MODELS)}: leave it out, "
            "or choose one of these models"
        )
    for stream, name in names.items():
        if stream not in STREAMS_MODELS[model]:
            raise SettingsError(
                f"backbone is {stream}={name}, but {model} has the streams {', '.join(STREAMS_MODELS[model])}; leave "
                "it out, or choose another model"
            )


def _load(who: str, stream: str, name: str, sources: Sequence[str], side: int | None) -> StreamNetwork:
    named = source_of(sources, stream)
    source = LIBRARY if named == AUTO else named
    if ":" not in name:
        backbone = build_network(name).network
        assert isinstance(backbone, Backbone)
        return StreamNetwork(StreamBackbone(name=name, n_features=backbone.n_features), backbone)
    if source in DATA_SETS:
        raise SettingsError(
            f"{who} is {name}, which the {source} files of emoface do not fit; give --pretrained {stream}=library, "
            f"{stream}=FILE or {stream}=none"
        )
    path = None if source in (LIBRARY, NONE) else find_weight_file(source)
    built = build_network(name, is_pretrained=source == LIBRARY)
    unused = () if path is None else fill_network(built, path, name)
    facts = StreamBackbone(
        name=name,
        software=describe_software(name),
        input_size=side or built.input_size,
        mean=built.mean,
        std=built.std,
        n_features=_count_features(name, stream, built, side or built.input_size),
    )
    backbone = _to_backbone(facts, built)
    if source == NONE:
        return StreamNetwork(facts, backbone)
    if path is None:
        _check_rebuilt(facts, backbone)
    state = built.network.state_dict()
    taken = TakenWeights(
        network=stream,
        source=f"{name}, weights of {facts.software}" if path is None else path.name,
        sha256=hash_tensors(built.network) if path is None else file_sha256(path),
        n_tensors=len(state),
        n_parameters=sum(value.numel() for value in state.values()),
        not_taken=(),
        unused=unused,
    )
    return StreamNetwork(facts, backbone, taken)


def _to_backbone(facts: StreamBackbone, built: BuiltNetwork) -> Backbone:
    if isinstance(built.network, Backbone):
        return built.network
    return LibraryBackbone(facts.name, built.network, facts.n_features, facts.mean, facts.std)


def _count_features(name: str, stream: str, built: BuiltNetwork, side: int) -> int:
    """Finds the width of the features, and whether the network takes inputs of a side at all."""
    try:
        return measure_features(name, built.network, side)[0]
    except _REFUSED_SIZE as error:
        option = "--context-size" if stream == "context" else "--person-size"
        raise SettingsError(
            f"{name} does not take inputs of {side} x {side} pixels ({str(error)[:_MOST_SHOWN]}); leave out {option}: "
            f"its own side is {built.input_size}"
        ) from error


def _check_rebuilt(facts: StreamBackbone, backbone: Backbone) -> None:
    """Checks that a network built without the library's weights and then filled computes the same features.

    The two differ where the weights bring an own architecture along, as those of OpenAI do for CLIP.

    Raises:
        SettingsError: They differ.
    """
    (rebuilt,) = rebuild_backbones({"": facts}).values()
    assert facts.input_size is not None
    x = torch.rand(2, 3, facts.input_size, facts.input_size, generator=torch.Generator().manual_seed(0))
    try:
        rebuilt.load_state_dict(backbone.state_dict())
        with torch.inference_mode():
            is_same = torch.allclose(rebuilt.eval()(x), backbone.eval()(x), rtol=1e-4, atol=1e-4)
    except RuntimeError:
        is_same = False
    if not is_same:
        raise SettingsError(
            f"{facts.name} without the library's weights is another network than with them, so a run could not be "
            "loaded again; name the variant that the weights belong to, as open_clip:ViT-B-32-quickgelu@openai"
        )
