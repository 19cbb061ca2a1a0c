"""The reference repository's own network through ``torch.hub``, in spite of its hubconf.

Its entry points build 80 classes and fetch weights that do not exist. One of them, ``custom``, rebuilds a network
from any object with a ``yaml`` and a state dict: it is given ours, read safely, so that no pickle is ever loaded.
The repository's code does run, which is why the commit is pinned, and only this backend does it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from emoface.errors import WeightsError
from emoface.yolov5face.architectures import find_architecture
from emoface.yolov5face.network import YoloV5Face

HUB_REPO = "deepcam-cn/yolov5-face:84ef013381e3a155b7a746215974dca7894e0f3e"
_PACKAGES = ("models", "utils", "hubconf")
_YAML_NAMES = {"yolov5-blazeface": "blazeface", "yolov5-blazeface-fpn": "blazeface_fpn"}


class _HubWeights(nn.Module):
    """What the entry point ``custom`` reads: ``yaml``, ``names``, a device and a state dict."""

    def __init__(self, network: YoloV5Face, yaml_path: Path) -> None:
        super().__init__()
        self.yaml = str(yaml_path)
        self.names = ["face"]
        self._network = network

    def state_dict(self, *_: object, **__: object) -> dict[str, Tensor]:  # type: ignore[override]
        """The network's own, without a prefix."""
        return dict(self._network.state_dict())


def load_reference_network(network: YoloV5Face, repo: str | None = None) -> nn.Module:
    """Builds the reference repository's network with our weights.

    Args:
        network: Whose structure and weights.
        repo: ``OWNER/NAME[:REF]`` on GitHub, downloaded into torch.hub's folder on first use, or the folder of a
            local clone; None is the pinned commit on GitHub.

    Returns:
        A module that maps (b, 3, h, w) to decoded predictions and raw heads (b, anchors, gh, gw, 16).

    Raises:
        WeightsError: The repository cannot be had or imported, or its network differs.
    """
    find_architecture(network.name)
    repo = repo or HUB_REPO
    try:
        folder = _repo_folder(repo)
        yaml_name = _YAML_NAMES.get(network.name, network.name.removesuffix("-face"))
        yaml_path = folder / "models" / f"{yaml_name}.yaml"
        if not yaml_path.is_file():
            raise WeightsError(f"{yaml_path}: no such file; {repo} has no network {network.name}")
        with _own_modules():
            reference: nn.Module = torch.hub.load(
                str(folder),
                "custom",
                source="local",
                path_or_model=_HubWeights(network, yaml_path),
                autoshape=False,
            )
    except (ImportError, RuntimeError, OSError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{repo}: cannot be used through torch.hub ({error}); it needs torchvision, pyyaml, requests, tqdm, "
            "matplotlib, seaborn and thop, or use another backend: '--backend auto'"
        ) from error
    return reference


def _repo_folder(repo: str) -> Path:
    """Where the repository lies; downloads it where it must."""
    if Path(repo).is_dir():
        return Path(repo).resolve()
    owner_name, _, ref = repo.partition(":")
    owner, slash, name = owner_name.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise WeightsError(f"{repo}: neither a folder nor OWNER/NAME[:REF] on GitHub")
    cached = Path(torch.hub.get_dir()) / "_".join((owner, name, (ref or "master").replace("/", "_")))
    if not (cached / "hubconf.py").is_file():
        with _own_modules():
            torch.hub.list(f"{owner_name}:{ref or 'master'}", trust_repo=True, skip_validation=True)
    return cached


@contextmanager
def _own_modules() -> Iterator[None]:
    """Lets a repository import its top-level ``models`` and ``utils``, without leaving or meeting others so named."""

    def take() -> dict[str, ModuleType]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in _PACKAGES}

    mine = take()
    try:
        yield
    finally:
        take()
        sys.modules.update(mine)
