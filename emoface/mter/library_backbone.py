"""The network of a library as the backbone of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from emoface.errors import SettingsError
from emoface.mter.blocks import Backbone
from emoface.mter.names import IMAGENET_MEAN, IMAGENET_STD


class LibraryBackbone(Backbone):
    """A network of another library: photos (b, 3, side, side), normalised for our networks, to (b, n_features).

    It first turns our normalisation into that of the library, so that the streams of a model can differ in theirs.

    Args:
        name: Name of the network, as in ``emoface.mter.backbones``.
        network: The network, (b, 3, side, side) normalised as the library does, to (b, n_features).
        n_features: Width of the features.
        mean: RGB, 0-1, that the library subtracts from a photo.
        std: RGB, 0-1, by which the library divides the photo after that.
    """

    def __init__(
        self, name: str, network: nn.Module, n_features: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network
        self.n_features = n_features
        scale = [ours / theirs for ours, theirs in zip(IMAGENET_STD, std, strict=True)]
        shift = [(ours - theirs) / one for ours, theirs, one in zip(IMAGENET_MEAN, mean, std, strict=True)]
        self.register_buffer("_scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_shift", torch.tensor(shift).view(1, 3, 1, 1), persistent=False)

    @property
    def last_map(self) -> nn.Module:
        raise SettingsError(
            f"which layer of {self.name} has its last feature map is not known, so a class activation map cannot be "
            "drawn; expected a model whose streams all have networks of emoface"
        )

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self._scale, Tensor) and isinstance(self._shift, Tensor)
        is_alone = self.training and len(x) == 1
        with _norms_in_evaluation(self.network) if is_alone else nullcontext():
            features = self.network(x * self._scale + self._shift)
        if not isinstance(features, Tensor):
            raise SettingsError(
                f"{self.name} returns {type(features).__name__} in training, expected one row of features per photo; "
                "choose another backbone"
            )
        return features

    def count_macs(self, input_shape: tuple[int, ...]) -> int:
        """Counts the MACs for one input: those of convolutions, fully connected layers and the products of attention.

        Args:
            input_shape: (3, side, side).
        """
        return run_and_count(self.network, input_shape)[1]


def run_and_count(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Any, int]:
    """Runs a network of a library once on zeros, and counts its MACs.

    Torch counts at each product of matrices, so that the MACs of any network are known; the fused forms of attention,
    which it does not count, are switched off.

    Args:
        network: The network; its mode stays.
        input_shape: (3, side, side).

    Returns:
        What the network returns for one photo, and the MACs of its convolutions, fully connected layers and products
        of attention.
    """
    zeros = torch.zeros(1, *input_shape, device=next(network.parameters()).device)
    has_fast_form = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    counter = FlopCounterMode(display=False)
    try:
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            output = network(zeros.clone())
    finally:
        torch.backends.mha.set_fastpath_enabled(has_fast_form)
    return output, int(counter.get_total_flops()) // 2


@contextmanager
def _norms_in_evaluation(network: nn.Module) -> Iterator[None]:
    """Lets BatchNorm layers normalise by their running statistics: a single row may have no variance.

    See ``blocks.MapNorm``, which does so for our networks.
    """
    norms = [part for part in network.modules() if isinstance(part, _BatchNorm) and part.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True
