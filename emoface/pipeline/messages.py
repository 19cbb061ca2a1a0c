"""Messages of a job in the words of a pipeline, which sets values by ``--set`` and has none of the job's options."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emoface.pipeline.stages import Stage
from emoface.progress import Progress
from emoface.storage.settings import FieldShape

_COMMAND = r"'emoface [^']*'"
_QUOTED = r"'--(?P<quoted>[a-z][a-z0-9-]*)(?P<rest> [^']*)?'"
_PLAIN = r"--(?P<plain>[a-z][a-z0-9-]*)(?P<value> [A-Za-z][\w:/.]*)?"
_PART = re.compile(rf"{_COMMAND}|{_QUOTED}|{_PLAIN}")
"""A whole command, which is right in a pipeline too; an option in quotes with its value; or an option."""


def to_pipeline_words(text: str, stage: Stage) -> str:
    """Replaces options of a job's command by the settings of the pipeline that have their place.

    Args:
        text: A message of the job, such as "name the file with --annotations".
        stage: The stage that runs the job.

    Returns:
        The message with ``--set SETTING=VALUE``, or with ``--set STAGE.FIELD=VALUE`` for a field that no setting of the
        pipeline file gives; options that are no field of the job are left.
    """

    def replace(found: re.Match[str]) -> str:
        name = (found["quoted"] or found["plain"] or "").replace("-", "_")
        field = type(stage.config).model_fields.get(name)
        if field is None:
            return found[0]
        shape, rest = FieldShape.of(field), found["rest"] or found["value"] or ""
        key = stage.variables.get(name, f"{stage.name}.{name}")
        if shape.kind is bool:
            setting = f"--set {key}=true"
        elif found["quoted"] or rest.strip().isupper() or rest.strip() in shape.choices:
            setting, rest = f"--set {key}={rest.strip() or 'VALUE'}", ""
        else:
            setting = f"--set {key}=VALUE"
        return f"'{setting}{rest}'" if found["quoted"] else f"{setting}{rest}"

    return _PART.sub(replace, text)


@dataclass(frozen=True)
class StageProgress:
    """Passes on the progress of a stage, with its notes in the words of the pipeline.

    Attributes:
        progress: Receives the progress.
        stage: The stage.
    """

    progress: Progress
    stage: Stage

    def start(self, description: str, total: int) -> None:
        """Passes it on."""
        self.progress.start(description, total)

    def advance(self, n: int = 1) -> None:
        """Passes it on."""
        self.progress.advance(n)

    def describe(self, text: str) -> None:
        """Passes it on."""
        self.progress.describe(text)

    def note(self, text: str) -> None:
        """Passes it on in the words of the pipeline."""
        self.progress.note(to_pipeline_words(text, self.stage))
