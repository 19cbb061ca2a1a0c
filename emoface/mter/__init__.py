"""MTER: emotion recognition from a person's face, body and surroundings."""

from __future__ import annotations

from emoface.mter.networks import MODEL_NAMES, STREAM_SIZES, STREAMS, Mter, MterOutput, build_model

__all__ = ["MODEL_NAMES", "STREAMS", "STREAM_SIZES", "Mter", "MterOutput", "build_model"]
