"""The interface through which a job reports its progress to its caller, without printing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a job; implemented by the command line, a notebook or a test."""

    def start(self, description: str, total: int) -> None:
        """Begins a phase of ``total`` units of work; it replaces the previous phase."""

    def advance(self, n: int = 1) -> None:
        """Reports that ``n`` more units are done."""

    def describe(self, text: str) -> None:
        """Reports the state of the current phase as text, which replaces the previous text."""

    def note(self, text: str) -> None:
        """Reports a message that stays visible."""


class Silent:
    """A progress receiver that does nothing."""

    def start(self, description: str, total: int) -> None:
        """Does nothing."""

    def advance(self, n: int = 1) -> None:
        """Does nothing."""

    def describe(self, text: str) -> None:
        """Does nothing."""

    def note(self, text: str) -> None:
        """Does nothing."""


SILENT = Silent()
