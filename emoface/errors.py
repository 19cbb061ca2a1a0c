"""The error family a user can act on; the command line turns each into one ``Error: ...`` line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmofaceError(Exception):
    """Bad data, files or settings.

    The message says what is wrong, where, what was expected, what was found, and what to do.
    """


class AnnotationsError(EmofaceError):
    """An annotation file that cannot be found, opened or understood."""


class TableError(EmofaceError):
    """A table of a data set folder that is missing or does not follow its schema."""


class ImageError(EmofaceError):
    """One photo that cannot be read; jobs record it in the photo's rows."""


class WeightsError(EmofaceError):
    """A weight file that is missing, damaged, unsafe or of another network."""


class SettingsError(EmofaceError):
    """A setting or a pipeline file that cannot be used."""


class TrainingError(EmofaceError):
    """A training run that cannot go on; the message says where it was."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Suggests the nearest known word, as the end of an error sentence.

    Args:
        word: What the user wrote.
        choices: The words that would have been understood.

    Returns:
        ``"; did you mean 'x'?"`` or, with nothing near, ``"; known: a, b, c"``.

    Example:
        >>> did_you_mean("stratifyed", ["emotic", "stratified"])
        "; did you mean 'stratified'?"
        >>> did_you_mean("zzz", ["b", "a"])
        '; known: a, b'
    """
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"
