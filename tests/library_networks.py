"""Stand-ins for timm, torchvision and open_clip, which the torch of this environment may not fit."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn

SIDE, N_FEATURES = 16, 12
PRETRAINED_WEIGHT = 0.5
"""What all weights of ``mix`` are that the stand-in of timm provides."""


class Tiny(nn.Module):
    """A stand-in for a network of a library: colours of a grid of 2 x 2, so that features hold what a photo shows."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.mix = nn.Linear(N_FEATURES, N_FEATURES)
        self.head = nn.Linear(N_FEATURES, n_classes) if n_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(self.pool(x).flatten(1)))
        return out


class TinyNorm(Tiny):
    """The same with BatchNorm over the features, which a batch of one cannot be normalised by."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(n_classes)
        self.norm = nn.BatchNorm1d(N_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(super().forward(x))
        return out


class TinyFixed(Tiny):
    """The same for inputs of its own side alone, as vision transformers are."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == SIDE, f"Input height ({x.shape[-1]}) doesn't match model ({SIDE})."
        return super().forward(x)


def fake_timm() -> ModuleType:
    """The part of timm's API that is used, in its real shape: create_model, and the data config of a model."""
    networks = {"tiny": Tiny, "tiny_norm": TinyNorm, "tiny_fixed": TinyFixed}

    def create_model(name: str, pretrained: bool = False, num_classes: int = 1000) -> nn.Module:
        if name not in networks:
            raise RuntimeError(f"Unknown model ({name})")
        network = networks[name](num_classes)
        if pretrained:
            nn.init.constant_(network.mix.weight, PRETRAINED_WEIGHT)
        return network

    def resolve_model_data_config(model: nn.Module) -> dict[str, Any]:
        return {"input_size": (3, SIDE, SIDE), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "crop_pct": 0.9}

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    timm.data = SimpleNamespace(resolve_model_data_config=resolve_model_data_config)  # type: ignore[attr-defined]
    return timm


def fake_torchvision() -> ModuleType:
    """The part of torchvision.models that is used, in its real shape: weights with transforms, and models by name."""
    transforms = SimpleNamespace(crop_size=[SIDE], resize_size=[20], mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 4.0])
    default = SimpleNamespace(transforms=lambda: transforms)

    def get_model_weights(name: str) -> Any:
        if name != "tiny":
            raise ValueError(f"Unknown model {name}")
        return SimpleNamespace(DEFAULT=default)

    torchvision = ModuleType("torchvision")
    torchvision.models = SimpleNamespace(  # type: ignore[attr-defined]
        get_model_weights=get_model_weights, get_model=lambda name, weights=None: Tiny(1000)
    )
    return torchvision


def fake_open_clip() -> ModuleType:
    """The part of open_clip's API that is used, in its real shape: a model with an image tower, its preprocessing."""

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = Tiny(0)
            self.token_embedding = nn.Embedding(4, 3)

    def create_model(name: str, pretrained: str | None = None) -> nn.Module:
        if name != "ViT-T":
            raise RuntimeError(f"Model config for {name} not found.")
        clip = Clip()
        if pretrained == "openai":  # weights that bring their own activation along
            clip.visual.head = nn.Tanh()
        return clip

    open_clip = ModuleType("open_clip")
    open_clip.create_model = create_model  # type: ignore[attr-defined]
    open_clip.get_model_preprocess_cfg = lambda model: {  # type: ignore[attr-defined]
        "size": (SIDE, SIDE),
        "mean": (0.4, 0.4, 0.4),
        "std": (0.3, 0.3, 0.3),
        "interpolation": "bicubic",
    }
    return open_clip


def install_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts the stand-ins in place of the libraries."""
    for name, build in (("timm", fake_timm), ("torchvision", fake_torchvision), ("open_clip", fake_open_clip)):
        monkeypatch.setitem(sys.modules, name, build())
