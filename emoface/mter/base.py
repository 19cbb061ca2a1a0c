"""The interface of every emotion model: its streams, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emoface.mter.blocks import Backbone
from emoface.mter.inputs import ContextInput as ContextInput
from emoface.mter.inputs import InputForm
from emoface.mter.names import STREAMS
from emoface.schema import N_CATEGORIES


class ModalityLogits(NamedTuple):
    """The logits of modalities that a model fuses by their product, for b people.

    Attributes:
        logits: Per modality (b, 26); those of a person without the modality are to be ignored.
        is_present: Per modality (b,) bool, who has it.
    """

    logits: dict[str, Tensor]
    is_present: dict[str, Tensor]


class MterOutput(NamedTuple):
    """A model's output for b people.

    Attributes:
        logits: (b, 26), logits of the whole model; of a model with linear outputs, estimates of the 0 or 1 themselves.
        stream_logits: Per stream with its own head, (b, 26) logits of that head, in the same sense.
        vad_unit: (b, 3), valence, arousal, dominance, where 0 is a rating of 1 and 1 a rating of 10; linear outputs can
            be outside. None where the model has no head for them.
        modalities: Logits for the multiplicative fusion loss; None where the model does not fuse by products.
        attention_logits: (b, 26), logits of the attention branch for its own loss; None without such a branch.
    """

    logits: Tensor
    stream_logits: dict[str, Tensor]
    vad_unit: Tensor | None
    modalities: ModalityLogits | None = None
    attention_logits: Tensor | None = None


def join_outputs(outputs: Sequence[MterOutput], join: Callable[[list[Tensor]], Tensor]) -> MterOutput:
    """Joins the outputs of several batches into one, every part of them by the same function.

    Args:
        outputs: Outputs of one model, at least one.
        join: Joins the same part of all outputs, such as ``torch.cat``.

    Example:
        >>> two = [MterOutput(torch.zeros(n, 26), {"face": torch.ones(n, 26)}, None) for n in (2, 3)]
        >>> joined = join_outputs(two, torch.cat)
        >>> tuple(joined.logits.shape), tuple(joined.stream_logits["face"].shape), joined.vad_unit
        ((5, 26), (5, 26), None)
    """

    def join_part(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return join(present) if present else None

    def join_named(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: join([part[name] for part in parts]) for name in parts[0]}

    modalities = [one.modalities for one in outputs if one.modalities is not None]
    return MterOutput(
        logits=join([one.logits for one in outputs]),
        stream_logits=join_named([one.stream_logits for one in outputs]),
        vad_unit=join_part([one.vad_unit for one in outputs]),
        modalities=ModalityLogits(
            join_named([one.logits for one in modalities]), join_named([one.is_present for one in modalities])
        )
        if modalities
        else None,
        attention_logits=join_part([one.attention_logits for one in outputs]),
    )


class Mter(nn.Module):
    """A model that takes photo streams and arrays as input and returns the logits of a person's labels.

    Attributes:
        name: One of ``names.MODEL_NAMES``.
        streams: The streams that it takes as input, in the order of ``STREAMS``.
        context_input: How the photo becomes the input of the context stream.
        array_inputs: The form of each input beside the streams, by name; most models have none.
        has_linear_outputs: Whether the outputs are used as they are, without a sigmoid, in training and in evaluation.
        n_labels: Number of labels; where a shape says 26, it is this number.
    """

    def __init__(
        self,
        name: str,
        streams: tuple[str, ...],
        *,
        context_input: ContextInput | None = None,
        array_inputs: Mapping[str, InputForm] | None = None,
        has_linear_outputs: bool = False,
        n_labels: int = N_CATEGORIES,
    ) -> None:
        super().__init__()
        self.n_labels = n_labels
        self.name = name
        self.streams = tuple(stream for stream in STREAMS if stream in streams)
        self.context_input = context_input or ContextInput()
        self.array_inputs = dict(array_inputs or {})
        self.has_linear_outputs = has_linear_outputs

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        """Computes the output for b people.

        Args:
            inputs: Per stream (b, 3, s, s), RGB, normalised by ``IMAGENET_MEAN`` and ``IMAGENET_STD``. Per name of
                ``array_inputs`` the values, (b, *shape), and under the name of its mask who has them, (b,
                *presence_shape) bool.
            has_face: (b,) bool; where False the face input is ignored, in training and in evaluation. On the CPU the
                call does not wait for a GPU; on the GPU it does.
        """
        raise NotImplementedError

    def to_vad_unit(self, vad_output: Tensor) -> Tensor:
        """Converts the outputs of the head for valence, arousal and dominance, (b, 3), to ``MterOutput.vad_unit``."""
        return vad_output if self.has_linear_outputs else vad_output.sigmoid()

    @property
    def reads_face_alone(self) -> bool:
        """Whether the face is its only input, so that it cannot use people without a face."""
        return self.streams == ("face",)

    def select_people(self, has_face: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Selects the people that the model can be trained and evaluated on.

        These are the people with a face if the face is the only input, else all people.

        Args:
            has_face: (n,) bool.

        Returns:
            (n,) bool.
        """
        return has_face if self.reads_face_alone else np.ones_like(has_face)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the network's branches, which are those of submodules; all else is the fusion."""
        return self.streams

    def backbones(self) -> dict[str, Backbone]:
        """Per stream, the network that computes the stream's features."""
        raise NotImplementedError

    def last_maps(self) -> dict[str, nn.Module]:
        """Per stream, the layer whose output is the last feature map, for class activation maps."""
        return {stream: backbone.last_map for stream, backbone in self.backbones().items()}


def check_inputs(model: Mter, inputs: Mapping[str, Tensor], has_face: Tensor) -> None:
    """Checks the inputs of a model.

    Raises:
        ValueError: An input is missing, or a shape or type is wrong.
    """
    for stream in model.streams:
        if stream not in inputs:
            raise ValueError(f"{model.name} reads {', '.join(model.streams)}; no '{stream}' among {sorted(inputs)}")
        x = inputs[stream]
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[0] != has_face.shape[0]:
            raise ValueError(f"'{stream}' has shape {tuple(x.shape)}, expected ({has_face.shape[0]}, 3, side, side)")
    if has_face.dtype != torch.bool or has_face.ndim != 1:
        raise ValueError(f"has_face is {has_face.dtype} of shape {tuple(has_face.shape)}, expected bool of (b,)")
    for name, form in model.array_inputs.items():
        _check_array(model, name, form, inputs, len(has_face))


def _check_array(model: Mter, name: str, form: InputForm, inputs: Mapping[str, Tensor], n_people: int) -> None:
    """Checks the values and the mask of one of a model's array inputs."""
    for wanted, content in ((name, form.meaning), (form.presence, f"who has '{name}'")):
        if wanted not in inputs:
            raise ValueError(f"{model.name} needs the input '{wanted}' ({content}), not among {sorted(inputs)}")
    sizes = {form.sized_as: inputs[form.sized_as].shape[-1]} if form.sized_as else {}
    values, is_present = inputs[name], inputs[form.presence]
    expected = (n_people, *form.shape_at(sizes))
    if tuple(values.shape) != expected or not values.is_floating_point():
        raise ValueError(
            f"'{name}' is {values.dtype} of shape {tuple(values.shape)}, expected floating point of {expected}: "
            f"{form.meaning}"
        )
    expected = (n_people, *form.presence_shape)
    if is_present.dtype != torch.bool or tuple(is_present.shape) != expected:
        raise ValueError(
            f"'{form.presence}' is {is_present.dtype} of shape {tuple(is_present.shape)}, expected bool of {expected}"
        )


def masked_features(backbone: Backbone, x: Tensor, has_face: Tensor) -> Tensor:
    """Computes the features of the people with a face; the features of the others are zeros.

    The backbone runs only on rows with a face, so the other rows affect neither its BatchNorm statistics nor its
    gradients. If no person of a training batch has a face, the parameters stay in the graph with gradients of zero, so
    that all processes of a distributed run reduce the same tensors.

    Args:
        backbone: Network from (n, 3, s, s) to (n, n_features).
        x: (b, 3, s, s).
        has_face: (b,) bool.

    Returns:
        (b, n_features).
    """
    return masked_rows(backbone, x, has_face, backbone.n_features)


def masked_rows(network: nn.Module, x: Tensor, is_present: Tensor, width: int) -> Tensor:
    """Computes a network's output for the people who have its input, and zeros for the others.

    See ``masked_features``, which does this for a backbone. In an export to ONNX the graph must be right for any mask:
    it computes all rows and replaces those of the others by zeros, which is equal because rows of a network in
    evaluation mode do not influence each other.

    Args:
        network: Network from (n, ...) to (n, width).
        x: (b, ...).
        is_present: (b,) bool; the values of other rows are ignored, whatever they are.
        width: Width of the output.

    Returns:
        (b, width).
    """
    if torch.onnx.is_in_onnx_export():
        return torch.where(is_present[:, None], network(x), 0.0)
    if bool(is_present.all()):
        output: Tensor = network(x) if len(x) else x.new_zeros(0, width)
        return output
    rows = is_present.nonzero().squeeze(1).to(x.device, non_blocking=True)
    if len(rows):
        found = network(x[rows])
        return torch.zeros(len(x), found.shape[1], dtype=found.dtype, device=found.device).index_copy(0, rows, found)
    output = x.new_zeros(len(x), width)
    if network.training and torch.is_grad_enabled():
        output = output + 0.0 * torch.stack([one.sum() for one in network.parameters()]).sum()
    return output
