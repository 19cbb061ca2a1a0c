"""A probe as a model of photos: the frozen backbone on each stream, and the head on the features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emoface.errors import SettingsError
from emoface.mter.backbones import FrozenBackbone
from emoface.mter.base import Mter, MterOutput, check_inputs
from emoface.mter.blocks import Backbone
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD
from emoface.mter.probe import PROBE, FeatureScaler, Head


class ProbeModel(Mter):
    """A frozen backbone, the standardisation of its features, and the head; its outputs are those of the probe.

    Args:
        backbone: The backbone, the same for all streams.
        scaler: Standardises the features.
        head: The head.
    """

    def __init__(self, backbone: FrozenBackbone, scaler: FeatureScaler, head: Head) -> None:
        super().__init__(PROBE, scaler.streams, n_labels=len(head.layers[-1][1]))
        self.network = backbone.network
        self.head = nn.ModuleList(_to_linear(weights, biases) for weights, biases in head.layers)
        self._scaler = scaler
        facts = backbone.facts
        for name, values in (
            ("imagenet_mean", IMAGENET_MEAN),
            ("imagenet_std", IMAGENET_STD),
            ("mean", facts.mean),
            ("std", facts.std),
        ):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        for stream in self.streams:
            self.register_buffer(f"{stream}_mean", torch.from_numpy(scaler.means[stream]))
            self.register_buffer(f"{stream}_scale", torch.from_numpy(scaler.scales[stream]))

    def forward(self, inputs: Mapping[str, Tensor], has_face: Tensor) -> MterOutput:
        check_inputs(self, inputs, has_face)
        told = self._scaler.face_column(has_face.cpu().numpy())
        has_face = has_face.to(self.get_buffer("mean").device)
        columns = []
        for stream in self.streams:
            x = inputs[stream] * self.get_buffer("imagenet_std") + self.get_buffer("imagenet_mean")  # 0-1
            features = self.network((x - self.get_buffer("mean")) / self.get_buffer("std")).double()
            features = (features - self.get_buffer(f"{stream}_mean")) / self.get_buffer(f"{stream}_scale")
            columns.append(torch.where(has_face[:, None], features, 0) if stream == "face" else features)
        if told is not None:
            columns.append(torch.from_numpy(told)[:, None].to(has_face.device))
        values = torch.cat(columns, dim=1)
        for number, layer in enumerate(self.head):
            values = layer(values.relu() if number else values)
        return MterOutput(values.float(), {}, None)

    def backbones(self) -> dict[str, Backbone]:
        """Raises an error, as the layers of a backbone of another library are not known.

        Raises:
            SettingsError: Always.
        """
        raise SettingsError(
            "a probe has no last feature map that is known, for the maps of 'emoface explain' or for training; use a "
            "model that 'emoface train' made"
        )


def _to_linear(weights: object, biases: object) -> nn.Linear:
    """A linear layer in double precision, from weights (inputs, outputs) and biases (outputs,)."""
    weight, bias = torch.as_tensor(weights), torch.as_tensor(biases)
    layer = nn.Linear(weight.shape[0], weight.shape[1], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight.T)
        layer.bias.copy_(bias)
    return layer
