"""A progress that keeps what a job reports."""

from __future__ import annotations

from emoface.progress import Silent


class Watching(Silent):
    """Keeps the notes, the number of steps that each task announced, and how many were taken."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.totals: dict[str, int | None] = {}
        self.n_steps = 0

    def start(self, task: str, total: int | None) -> None:
        self.totals[task] = total

    def advance(self, n: int = 1) -> None:
        self.n_steps += n

    def note(self, text: str) -> None:
        self.notes.append(text)
