"""The command line: every command helps with an example, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from emoface.cli import main
from emoface.cli.console import _KEPT
from emoface.version import __version__

PIPELINE = """
[settings]
out = "work"

[[stage]]
job = "report"
dir = "${out}"
seed = 1
"""


def _walk(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, child in sorted(command.commands.items()):
            yield from _walk((*words, name), child)


COMMANDS = list(_walk((), main))
LEAVES = [one for one in COMMANDS if not isinstance(one[1], click.Group)]


def _name(value: object) -> str:
    return " ".join(value) or "emoface" if isinstance(value, tuple) else ""


def _call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=_name)
def test_help_shows_an_example_that_the_command_understands(words: tuple[str, ...], command: click.Command) -> None:
    answer = _call(*words, "--help")
    assert answer.exit_code == 0
    examples = [shlex.split(line)[1:] for line in answer.output.splitlines() if line.startswith("    emoface ")]
    assert "Example:" in answer.output and examples
    for example in examples:
        assert tuple(example[: len(words)]) == words
        if not isinstance(command, click.Group):
            command.make_context(words[-1], example[len(words) :], resilient_parsing=False)


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=_name)
def test_every_option_and_command_is_described(words: tuple[str, ...], command: click.Command) -> None:
    assert command.help and command.help.splitlines()[0].endswith(".")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(words)} {parameter.opts}"


@pytest.mark.parametrize(("words", "command"), LEAVES, ids=_name)
def test_bad_usage_exits_with_2(words: tuple[str, ...], command: click.Command) -> None:
    answer = _call(*words, "--no-such-option")
    assert answer.exit_code == 2
    assert "No such option" in answer.output
    if any(isinstance(one, click.Argument) and one.required for one in command.params):
        answer = _call(*words)
        assert answer.exit_code == 2
        assert "Missing argument" in answer.output


def test_unknown_command_exits_with_2() -> None:
    answer = _call("spilt")
    assert answer.exit_code == 2
    assert "No such command 'spilt'" in answer.output


def test_version() -> None:
    assert _call("--version").output == f"emoface, version {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["parse", "nowhere", "--out", "work"], "nowhere: no such folder"),
        (["parse", "emotik", "--out", "work"], "emotik: no such folder; did you mean 'EMOTIC'?"),
        (["parse", "EMOTIC", "--out", "work"], "looked for EMOTIC/Annotations/Annotations.mat"),
        (["parse", "EMOTIC", "--out", "work", "--annotations", "d.json"], "d.json: not JSON"),
        (
            ["parse", "EMOTIC", "--out", "work", "--annotations", "l.json"],
            "l.json: a JSON file of a form that is not known",
        ),
        (["run", "emotic_face"], "name the file or folder with --set annotations=VALUE"),
        (["faces", "nowhere"], "nowhere/people.parquet: no such file; rebuild it with 'emoface parse"),
        (["split", "nowhere"], "nowhere/records/parse.json: no such file; run 'emoface parse' first"),
        (["split", "nowhere", "--ratios", "70/30"], "ratios are '70/30', expected three shares"),
        (["report", "nowhere"], "nowhere/people.parquet: no such file"),
        (["simulate", "sim", "--images", "0"], "images is 0, expected 1 or more"),
        (["demo", "--images", "0"], "images is 0, expected 20 or more"),
        (["run", "p.toml"], "people.parquet: no such file"),
        (["run", "p.toml", "--set", "uot=x"], "--set uot: p.toml has no setting 'uot'; did you mean 'out'?"),
        (["run", "p.toml", "--set", "report.sed=1"], "report has no setting 'sed'; did you mean 'seed'?"),
        (["run", "p.toml", "--rebuild", "reprot"], "--rebuild reprot: p.toml has no stage 'reprot'; did you mean"),
        (["status", "emotic_fase"], "emotic_fase: no such pipeline file"),
        (["status", "p.toml", "--set", "report.seed=two"], "stage 'report': seed is 'two', expected a whole number"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(PIPELINE)
    Path("EMOTIC").mkdir()
    Path("d.json").write_text('{"images": [')
    Path("l.json").write_text("[]")
    answer = _call(*words)
    assert answer.exit_code == 1
    lines = [line for line in answer.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and message in lines[0], answer.output
    assert lines[0] == answer.stderr.splitlines()[-1]
    assert "Traceback" not in answer.output and answer.stdout == ""


@pytest.mark.parametrize("words", [["--debug", "report", "nowhere"], ["report", "nowhere", "--debug"]])
def test_debug_shows_the_traceback(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = _call(*words)
    assert answer.exit_code == 1
    assert "Traceback" in answer.stderr and "in run_report" in answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("Error: nowhere/people.parquet: no such file")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "work"], "nothing unfinished is taken for finished; run the same command again, which starts anew"),
        (
            ["run", "p.toml"],
            "the finished stages are kept, and what the last one can resume from; run the same",
        ),
    ],
)
def test_ctrl_c_says_what_is_kept(words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("emoface.jobs.report.run_report", interrupt)
    Path("p.toml").write_text(PIPELINE)
    answer = _call(*words)
    assert answer.exit_code == 130
    assert answer.stderr.splitlines()[-1].startswith(f"Interrupted: {said}") and "Aborted" not in answer.output


def test_commands_that_resume_say_so() -> None:
    assert _KEPT.keys() <= {" ".join(words) for words, _ in LEAVES}


def test_file_that_may_not_be_written_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("a file where a folder is wanted")
    answer = _call("simulate", "taken/sim", "--images", "1")
    assert answer.exit_code == 1
    assert answer.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / 'taken/sim'}: ")


def test_status_prints_one_line_per_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(PIPELINE)
    answer = _call("status", "p.toml")
    assert answer.exit_code == 0
    assert answer.output == f"stage\tstate\twhy\nreport\tmissing\thas not run in {tmp_path / 'work'}\n"


def test_status_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(PIPELINE)
    answer = _call("status", "p.toml", "--json")
    reasons = [f"has not run in {tmp_path / 'work'}"]
    assert json.loads(answer.stdout) == [{"stage": "report", "state": "missing", "reasons": reasons}]


@pytest.mark.parametrize("words", [["-q", "simulate"], ["simulate", "--quiet"]])
def test_quiet_shows_results_and_errors_alone(words: list[str], tmp_path: Path) -> None:
    call = [*words, str(tmp_path / "sim"), "--images", "1"]
    assert _call(*[word for word in call if word not in ("-q", "--quiet")]).stderr != ""
    answer = _call(*words, str(tmp_path / "sim"), "--images", "0")
    assert answer.exit_code == 1 and answer.stderr.startswith("Error: ") and len(answer.stderr.splitlines()) == 1
    answer = _call(*call)
    assert (answer.exit_code, answer.stderr) == (0, "") and "photos: 1" in answer.stdout


def test_quiet_pipeline_prints_no_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.toml").write_text(PIPELINE.replace('job = "report"\ndir', 'job = "simulate"\nimages = 1\nout'))
    assert "simulate: runs, missing" in _call("run", "p.toml").stderr
    answer = _call("run", "p.toml", "--rebuild", "simulate", "--quiet")
    assert (answer.exit_code, answer.output) == (0, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("emoface export-f", "plain,export-fiftyone"),
        ("emoface train --pati", "plain,--patience"),
        ("emoface -", "plain,--quiet"),
    ],
)
def test_shell_completes_commands_and_options(line: str, expected: str) -> None:
    words = shlex.split(line)
    environment = {"_EMOFACE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    program = str(Path(sys.executable).with_name("emoface"))
    answer = subprocess.run([program], capture_output=True, text=True, check=True, env={**os.environ, **environment})
    assert expected in answer.stdout.splitlines(), answer.stdout


def test_program_and_module_are_the_same() -> None:
    for call in ([sys.executable, "-m", "emoface"], [str(Path(sys.executable).with_name("emoface"))]):
        answer = subprocess.run([*call, "--version"], capture_output=True, text=True, check=True)
        assert answer.stdout == f"emoface, version {__version__}\n"


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_passively_unless_the_user_says_otherwise(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    code = (
        "import os, sys; from click.testing import CliRunner; from emoface.cli import main; "
        "CliRunner().invoke(main, ['weights', 'list']); print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == [expected, "False"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict", "no images; give one or more photos, folders or videos, or the number of a camera"),
        ("explain", "no people to explain; give photos, an index or a person_id"),
    ],
)
def test_command_that_is_given_nothing_is_wrong_usage(command: str, message: str) -> None:
    answer = CliRunner().invoke(main, [command, "run"])
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[0].startswith(f"Usage: main {command} ") and answer.stderr.endswith(
        f"Error: {message}\n"
    )
