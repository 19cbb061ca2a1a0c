"""Where a trained model comes from: a run, an exported folder, a file of either, or the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from emoface.errors import SettingsError, WeightsError
from emoface.mter.exported import CONFIG_NAME, WEIGHTS_NAME, read_model_folder
from emoface.mter.runs import BEST_NAME, RUN_NAME, Run, read_run

if TYPE_CHECKING:
    from emoface.inference.onnx_models import OnnxModel

ONNX_SUFFIX = ".onnx"
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
"""Name of a repository of the Hugging Face Hub, OWNER/NAME."""
_EXPECTED = (
    f"the folder of a run, a folder that 'emoface export' wrote, the {WEIGHTS_NAME} or {BEST_NAME} in one of them, an "
    f"{ONNX_SUFFIX} file, or OWNER/NAME on the Hugging Face Hub"
)


def find_model(source: str | Path, device: str = "auto") -> Run | OnnxModel:
    """Finds a trained model.

    A text is looked for on this machine first. It can name a repository of the Hugging Face Hub if it has the form
    OWNER/NAME and there is no folder OWNER here; a ``Path`` never does.

    Args:
        source: A run, an exported folder, a file of either, an ONNX file or a repository.
        device: Device of an ONNX file.

    Returns:
        The run, from which torch loads the network, or the ONNX model, which runs without torch.

    Raises:
        SettingsError: It is none of these.
        WeightsError: The weights are missing or damaged, or cannot be downloaded.
        ModuleNotFoundError: It is on the Hub, and the package huggingface_hub is not installed.
    """
    path = Path(source)
    if path.is_dir():
        if not _is_described(path):
            raise SettingsError(f"{path}: neither {RUN_NAME} nor {CONFIG_NAME} is in this folder; expected {_EXPECTED}")
        return read_model_folder(path)
    if path.suffix == ONNX_SUFFIX and path.is_file():
        from emoface.inference.onnx_models import OnnxModel

        return OnnxModel(path, device)
    if path.is_file():
        return _read_beside(path)
    if isinstance(source, str) and _is_repository(source):
        return read_model_folder(_fetch_repository(source))
    if isinstance(source, Path):
        return read_run(path)  # an error that names the command which makes a run
    raise SettingsError(f"{source}: no such file or folder; expected {_EXPECTED}")


def _is_repository(source: str) -> bool:
    """Whether a text that is no file here can be the name of a repository; ``runs/mter3`` beside ``runs`` is not."""
    path = Path(source)
    is_file_name = path.suffix in (ONNX_SUFFIX, Path(WEIGHTS_NAME).suffix)
    return _REPOSITORY.fullmatch(source) is not None and not is_file_name and not path.parent.exists()


def _read_beside(path: Path) -> Run:
    """Reads the folder of a file of weights; the file alone does not say which network it belongs to."""
    run = read_model_folder(path.parent) if path.suffix == ".safetensors" and _is_described(path.parent) else None
    if run is None or path.name != run.weights_name:
        raise SettingsError(
            f"{path}: not the weights of a run or of an exported folder, whose {RUN_NAME} or {CONFIG_NAME} says which "
            f"network they belong to; expected {_EXPECTED}"
        )
    return run


def _is_described(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (RUN_NAME, CONFIG_NAME))


def _fetch_repository(name: str) -> Path:
    """Finds a repository in the local cache of the Hugging Face Hub, or else downloads it.

    Raises:
        WeightsError: It is not in the cache and cannot be downloaded.
        ModuleNotFoundError: The package huggingface_hub is not installed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [CONFIG_NAME, WEIGHTS_NAME]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
        if all((folder / one).is_file() for one in wanted):
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise SettingsError(f"{name}: no such file or folder, and no name of a repository ({error})") from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"{name}: no such file or folder here, and it cannot be read from the Hugging Face Hub ({first}); expected "
            f"{_EXPECTED}"
        ) from error
    if missing := [one for one in wanted if not (folder / one).is_file()]:
        raise SettingsError(
            f"{name}: this repository of the Hugging Face Hub has no {' and no '.join(missing)}; expected a folder "
            "that 'emoface export' wrote"
        )
    return folder
