"""Loads the reference repository's own network through ``torch.hub``.

Most entry points of its ``hubconf.py`` cannot be used: they build networks of 80 classes and fetch weights that do not
exist. One of them, ``custom``, builds a network from any object with a ``yaml`` and a state dict. It is given our
network's weights, which were read safely, so no pickle is loaded. The repository's code does run; this is why the
commit is pinned, and why only the backend ``hub`` uses it.

The repository imports packages that its network does not use (torchvision for non-maximum suppression, seaborn for
plots...). Where such a package is not installed, a placeholder lets the import succeed and raises at the first use.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import cv2
import torch
from torch import Tensor, nn

from emoface.errors import WeightsError
from emoface.yolov5face.network import YoloV5Face

HUB_REPO = "deepcam-cn/yolov5-face:84ef013381e3a155b7a746215974dca7894e0f3e"
HUB_REPO_VARIABLE = "EMOFACE_HUB_REPO"
_PACKAGES = ("models", "utils", "hubconf")
_UNUSED_BY_NETWORK = ("torchvision", "requests", "thop", "seaborn", "tqdm", "pkg_resources")
_YAML_NAMES = {"yolov5-blazeface": "blazeface", "yolov5-blazeface-fpn": "blazeface_fpn"}


def load_reference_network(network: YoloV5Face, repo: str | None = None) -> nn.Module:
    """Builds the reference repository's network with our weights.

    Args:
        network: Network whose structure and weights to use.
        repo: ``OWNER/NAME[:REF]`` on GitHub, downloaded into torch.hub's folder on first use, or the folder of a
            local clone; None is the value of the environment variable ``EMOFACE_HUB_REPO``, else the pinned commit on
            GitHub.

    Returns:
        A module that maps (b, 3, h, w) to decoded predictions and raw heads (b, anchors, gh, gw, 16).

    Raises:
        WeightsError: The repository cannot be downloaded or imported, or its network differs from ours.
    """
    repo = repo or os.environ.get(HUB_REPO_VARIABLE) or HUB_REPO
    folder = _repo_folder(repo)
    yaml_name = _YAML_NAMES.get(network.name, network.name.removesuffix("-face"))
    yaml_path = folder / "models" / f"{yaml_name}.yaml"
    if not yaml_path.is_file():
        raise WeightsError(f"{yaml_path}: no such file; {repo} has no network {network.name}")
    try:
        with _foreign_code():
            reference: nn.Module = torch.hub.load(
                str(folder), "custom", source="local", path_or_model=_HubWeights(network, yaml_path), autoshape=False
            )
    except (ImportError, RuntimeError, OSError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{repo}: its 'custom' entry point failed ({type(error).__name__}: {error}); install what it asks for, or "
            "use another backend: '--backend auto'"
        ) from error
    return reference.eval()


class _HubWeights(nn.Module):
    """The model object that the entry point ``custom`` reads: ``yaml``, ``names``, a device and a state dict."""

    def __init__(self, network: YoloV5Face, yaml_path: Path) -> None:
        super().__init__()
        self.yaml = str(yaml_path)
        self.names = ["face"]
        self._network = network

    def state_dict(self, *_: object, **__: object) -> dict[str, Tensor]:  # type: ignore[override]
        """Returns the state dict of our network, without a prefix in the tensor names."""
        return dict(self._network.state_dict())


def _repo_folder(repo: str) -> Path:
    """Returns the local folder of the repository; downloads the repository if it is not there."""
    if Path(repo).is_dir():
        return Path(repo).resolve()
    owner_name, _, ref = repo.partition(":")
    owner, slash, name = owner_name.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise WeightsError(f"{repo}: neither a folder nor OWNER/NAME[:REF] on GitHub")
    cached = Path(torch.hub.get_dir()) / "_".join((owner, name, (ref or "master").replace("/", "_")))
    if not (cached / "hubconf.py").is_file():
        try:
            with _foreign_code():
                torch.hub.list(f"{owner_name}:{ref or 'master'}", trust_repo=True, skip_validation=True)
        except (ImportError, RuntimeError, OSError, ValueError) as error:
            raise WeightsError(
                f"{repo}: cannot be downloaded through torch.hub ({error}); check the network, or name the folder of "
                f"a local clone in {HUB_REPO_VARIABLE}"
            ) from error
    return cached


@contextmanager
def _foreign_code() -> Iterator[None]:
    """Lets a repository import its top-level ``models`` and ``utils``; undoes all that its import changed on exit."""
    finder = _StandInFinder()
    own_modules, root, path = _take_modules(), logging.getLogger(), list(sys.path)
    threads, level, handlers = cv2.getNumThreads(), root.level, list(root.handlers)
    sys.meta_path.append(finder)
    root.addHandler(logging.NullHandler())  # the repository sets up logging only where the root logger has no handler
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _take_modules()
        sys.modules.update(own_modules)
        sys.path[:] = path
        cv2.setNumThreads(threads)
        root.setLevel(level)
        root.handlers[:] = handlers


def _take_modules() -> dict[str, ModuleType]:
    """Removes the repository's modules and all placeholders from ``sys.modules``, and returns them."""
    foreign = [
        name
        for name, module in sys.modules.items()
        if name.split(".")[0] in _PACKAGES or isinstance(module, _StandInModule)
    ]
    return {name: sys.modules.pop(name) for name in foreign}


class _StandIn:
    """Placeholder for a function of a package that is not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: object, **__: object) -> NoReturn:
        raise ImportError(f"{self._name} was called, but its package is not installed")

    def __getattr__(self, name: str) -> _StandIn:
        return _StandIn(f"{self._name}.{name}")


class _StandInModule(ModuleType):
    """Placeholder for a package that is not installed."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self.__name__}.{name}")


class _StandInFinder(MetaPathFinder, Loader):
    """Finds placeholders for missing packages; it is the last finder, so an installed package takes precedence."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Returns a placeholder for a package that the network does not use, else None."""
        if fullname.split(".")[0] not in _UNUSED_BY_NETWORK:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandInModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing: a placeholder has no content."""
