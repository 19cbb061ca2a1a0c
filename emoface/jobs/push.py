"""The push job: uploads an exported model or the tables of a data set to the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import Field

from emoface.datasets.manifest import MANIFEST_NAME, read_manifest
from emoface.datasets.publication import write_public_copy
from emoface.errors import SettingsError, UploadError, first_line
from emoface.mter.exported import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME, read_model_folder
from emoface.progress import SILENT, Progress
from emoface.reporting.data_card import DataCard, is_own_card, write_data_card
from emoface.storage.records import JobRecord, code_fingerprint, hash_outputs, to_settings
from emoface.storage.settings import Folder, Line, Settings

Kind = Literal["model", "dataset"]
_MODEL_FILES = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)


class PushConfig(Settings):
    """Settings of the push job."""

    folder: Folder
    """Folder that 'emoface export --format folder' wrote, or folder of a data set, with manifest.json."""
    repo: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")]
    """Repository of the Hugging Face Hub, OWNER/NAME; it is made if there is none."""
    public: bool = False
    """Make a new repository public; without it a new one is private. One that is there stays as it is."""
    with_crops: bool = False
    """Upload the crops of the faces of a data set too. EMOTIC's licence does not allow it for EMOTIC or parts of it,
    and faces of real people are personal data."""
    license: Line = "other"
    """Licence for the card of a data set, as an identifier of the Hugging Face Hub such as cc-by-4.0; other says that
    it is not known to emoface."""


def run_push(config: PushConfig, progress: Progress = SILENT) -> JobRecord:
    """Uploads a model with its card, or the tables of a data set with their manifest, card and Croissant description.

    Photos are never uploaded. The tables are uploaded without the crops of faces unless the settings say so, and the
    manifest without the paths of this machine. ``HF_ENDPOINT`` and ``HF_TOKEN`` name the Hub and the user, as for all
    programs that use it.

    Args:
        config: Settings of the job.
        progress: Receives one step.

    Returns:
        The job's record; it is not written to disk.

    Raises:
        SettingsError: The folder is neither an exported model nor a data set.
        UploadError: The Hub refuses, or cannot be reached.
        ModuleNotFoundError: The package huggingface_hub is not installed.
    """
    import huggingface_hub  # noqa: F401  before anything is copied

    kind = _find_kind(config.folder)
    progress.start(f"push {kind}", 1)
    with tempfile.TemporaryDirectory(prefix="emoface-push-") as name:
        staged = Path(name)
        (_stage_model if kind == "model" else _stage_data_set)(config, staged)
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        outputs = hash_outputs(staged, files)
        n_bytes = sum(path.stat().st_size for path in files)
        address = _upload(config, kind, staged)
    progress.advance()
    return JobRecord(
        job="push",
        settings=to_settings(config),
        inputs={},
        outputs=outputs,
        counts={"kind": kind, "files": len(files), "bytes": n_bytes, "repository": address},
        code=code_fingerprint(__name__),
    )


def _find_kind(folder: Path) -> Kind:
    if (folder / CONFIG_NAME).is_file() and (folder / WEIGHTS_NAME).is_file():
        return "model"
    if (folder / MANIFEST_NAME).is_file():
        return "dataset"
    raise SettingsError(
        f"{folder}: has neither {CONFIG_NAME} and {WEIGHTS_NAME} nor {MANIFEST_NAME}; expected a folder that 'emoface "
        "export RUN --format folder' wrote, or a data set that 'emoface split' has finished"
    )


def _stage_model(config: PushConfig, staged: Path) -> None:
    read_model_folder(config.folder)  # an error if the weights are not those that the description names
    for name in _MODEL_FILES:
        path = config.folder / name
        if not path.is_file():
            raise SettingsError(f"{path}: no such file; export the run again with 'emoface export'")
        shutil.copyfile(path, staged / name)


def _stage_data_set(config: PushConfig, staged: Path) -> None:
    manifest = read_manifest(config.folder / MANIFEST_NAME, check_sha256=True)
    public = write_public_copy(manifest, staged, config.with_crops)
    write_data_card(
        public, DataCard(config.repo.partition("/")[2], config.license, config.with_crops), described=manifest
    )
    if is_own_card(own := config.folder / CARD_NAME):
        shutil.copyfile(own, staged / CARD_NAME)


def _upload(config: PushConfig, kind: Kind, staged: Path) -> str:
    """Uploads a folder in one commit; returns the address of the repository."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _one_line_errors(config.repo, str(api.endpoint)):
        made: Any = api.create_repo(config.repo, repo_type=kind, private=not config.public, exist_ok=True)
        api.upload_folder(
            repo_id=config.repo, repo_type=kind, folder_path=staged, commit_message="Upload by emoface push"
        )
    return str(made)


@contextmanager
def _one_line_errors(repo: str, endpoint: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub into one that says what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    # those of the library that sends requests, which differs between versions of huggingface_hub
    sending_errors = cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__)
    others: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *sending_errors)
    try:
        yield
    except HFValidationError as error:
        raise SettingsError(f"{repo}: no name of a repository ({first_line(error)}); expected OWNER/NAME") from error
    except LocalTokenNotFoundError as error:
        raise UploadError(f"{repo}: {endpoint} needs to know who you are; {_LOG_IN}") from error
    except OfflineModeIsEnabled as error:
        raise UploadError(f"{repo}: HF_HUB_OFFLINE is set, so nothing is uploaded; unset it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        remedy = _REMEDIES.get(status, "try again later")
        raise UploadError(f"{repo}: {endpoint} answered {status} ({first_line(error)}); {remedy}") from error
    except others as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise UploadError(
            f"{repo}: nothing was uploaded to {endpoint} ({first_line(error)}); check the network and HF_ENDPOINT, "
            "and run the same command again"
        ) from error


_LOG_IN = "log in with 'hf auth login', or set HF_TOKEN to a token with write access"
_REMEDIES = {
    401: _LOG_IN,
    403: "the token has no write access to this repository; use one that has, or choose another OWNER",
    404: "there is no such owner or repository for this token; check OWNER/NAME and the token",
    409: "somebody changed the repository at the same time; run the same command again",
    413: "the files are larger than this Hub takes",
    429: "too many requests; wait some minutes and run the same command again",
}
