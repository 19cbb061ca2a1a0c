"""How a job tells its caller how far it is, without printing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What the command line, a notebook or a test gives a job to report to."""

    def start(self, description: str, total: int) -> None:
        """Begins one stretch of work of ``total`` units; it replaces the stretch before it."""

    def advance(self, n: int = 1) -> None:
        """Reports ``n`` more units as done."""

    def describe(self, text: str) -> None:
        """Says how the stretch is going, in place of what was said before."""

    def note(self, text: str) -> None:
        """Says something that is to stay readable."""


class Silent:
    """A progress that nobody watches."""

    def start(self, description: str, total: int) -> None:
        """Does nothing."""

    def advance(self, n: int = 1) -> None:
        """Does nothing."""

    def describe(self, text: str) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""


SILENT = Silent()
