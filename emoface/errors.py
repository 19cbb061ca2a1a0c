"""Errors that a user can act on; the command line prints each as one ``Error: ...`` line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_LONGEST_LINE = 300
"""Characters of a library's own error that are shown."""


class EmofaceError(Exception):
    """Bad data, files or settings.

    The message says what is wrong and where, what was expected, what was found, and what to do.
    """


class AnnotationsError(EmofaceError):
    """An annotation file that cannot be found, opened or understood."""


class TableError(EmofaceError):
    """A table of a data set folder that is missing or does not follow its schema."""


class ImageError(EmofaceError):
    """A photo that cannot be read; jobs record this in the rows of its people."""


class WeightsError(EmofaceError):
    """A weight file that is missing, damaged, unsafe or made for another network."""


class PredictionsError(EmofaceError):
    """A file of another program's predictions that cannot be read or does not fit the people of the split."""


class SettingsError(EmofaceError):
    """A setting or a pipeline file that cannot be used."""


class NothingGivenError(SettingsError):
    """A command that was given nothing to work on; the command line shows it as wrong usage, with exit code 2."""


class LockedError(EmofaceError):
    """A folder that another process writes to at this time; the message says which process."""


class StoreError(EmofaceError):
    """An object store that does not answer, or that refuses access; it says nothing about a single photo."""


class UploadError(EmofaceError):
    """An upload to the Hugging Face Hub that was refused or interrupted, or one that another upload disturbed."""


class ClusterError(EmofaceError):
    """Work on a cluster that failed on its machines again and again, or machines that do not share the same files."""


class WorkerError(EmofaceError):
    """A process of this machine that died while it worked for a job."""


class ProtocolError(EmofaceError):
    """An evaluation that breaks a rule of the protocol it was to follow."""


class TrainingError(EmofaceError):
    """A training run that cannot continue; the message says at which point it stopped."""


def find_nearest(word: str, choices: Iterable[str]) -> str | None:
    """Finds the most similar known word, in capitals or not; None if no word is similar.

    Example:
        >>> find_nearest("emotik", ["EMOTIC", "other"])
        'EMOTIC'
    """
    known = {one.lower(): one for one in choices}
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return known[near[0]] if near else None


def first_line(error: Exception) -> str:
    r"""The first line of a library's error that says something, without its full stop; else the name of its type.

    Example:
        >>> first_line(ValueError("  no such run.\nTraceback...")), first_line(OSError())
        ('no such run', 'OSError')
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:_LONGEST_LINE]


def name_first(failures: Sequence[str], most: int) -> str:
    """Names the first of many failures, and how many more there are.

    Example:
        >>> name_first(["a", "b", "c"], 2), name_first(["a"], 2)
        ('a; b; and 1 more', 'a')
    """
    more = [f"and {len(failures) - most} more"] if len(failures) > most else []
    return "; ".join([*failures[:most], *more])


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggests the most similar known word, as the end of an error message.

    Args:
        word: What the user wrote.
        choices: The known words.

    Returns:
        ``"; did you mean 'x'?"``, or ``"; known: a, b, c"`` where no known word is similar.

    Example:
        >>> did_you_mean("stratifyed", ["emotic", "stratified"])
        "; did you mean 'stratified'?"
        >>> did_you_mean("zzz", ["b", "a"])
        '; known: a, b'
    """
    known = sorted(choices)
    nearest = find_nearest(word, known)
    return f"; did you mean '{nearest}'?" if nearest else f"; known: {', '.join(known)}"


_EXTRA_OF = {
    "torch": "train",
    "lightning_fabric": "train",
    "tensorboard": "train",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "ray": "ray",
    "pillow_heif": "heic",
    "ai_edge_litert": "pose",
    "timm": "timm",
    "torchvision": "timm",
    "open_clip": "clip",
    "cleanlab": "audit",
    "huggingface_hub": "hub",
    "fsspec": "s3",
    "s3fs": "s3",
    "gcsfs": "gcs",
}
"""The extra of emoface that installs a package which ``pip install emoface`` leaves out, by the name to import."""


def install_command(package: str) -> str:
    """Returns the command that installs an optional package.

    Args:
        package: The name to import, such as ``torch``.

    Example:
        >>> install_command("torch")
        "pip install 'emoface[train]'"
    """
    return f"pip install 'emoface[{_EXTRA_OF[package]}]'"


def describe_missing_package(error: ModuleNotFoundError) -> str | None:
    """Describes a failed import of an optional package as an error message; None for any other module.

    Example:
        >>> describe_missing_package(ModuleNotFoundError(name="torch"))
        "this needs the package torch, which is not installed; install it with pip install 'emoface[train]'"
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRA_OF:
        return None
    return f"this needs the package {package}, which is not installed; install it with {install_command(package)}"
