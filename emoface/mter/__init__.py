"""MTER: emotion recognition from a person's face, body and surroundings.

Networks are imported on first use, so that names and recipes can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from emoface.mter.names import MODEL_NAMES, STREAM_SIZES, STREAMS

if TYPE_CHECKING:
    from emoface.mter.base import Mter, MterOutput
    from emoface.mter.networks import build_model

__all__ = ["MODEL_NAMES", "STREAMS", "STREAM_SIZES", "Mter", "MterOutput", "build_model"]

_MODULE_OF = {"Mter": "base", "MterOutput": "base", "build_model": "networks"}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
