"""The device of the tests of everything that runs on a GPU.

They are skipped where torch sees no CUDA device. ``EMOFACE_GPU_TESTS_DEVICE=cpu`` runs the same tests on the CPU, which
shows that the tests themselves are right.
"""

from __future__ import annotations

import os

import pytest
import torch

VARIABLE = "EMOFACE_GPU_TESTS_DEVICE"


@pytest.fixture(scope="session")
def device() -> str:
    """``cuda``, or ``cpu`` if the environment says so; or a skip."""
    name = os.environ.get(VARIABLE, "cuda")
    if name not in ("cuda", "cpu"):
        pytest.fail(f"{VARIABLE} is '{name}', expected cuda or cpu")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no CUDA device; {VARIABLE}=cpu runs these tests on the CPU")
    return name
