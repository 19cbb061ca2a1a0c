"""Pipelines, on two stand-in jobs: ``shout`` writes a text in capitals, ``count`` counts letters of what it wrote.

What runs is seen from the outside: each job adds its word to ``RUNS``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from emoface.errors import SettingsError, TableError
from emoface.jobs.pipeline import PipelineConfig, check_pipeline, read_stages, run_pipeline
from emoface.pipeline import stages as pipeline_stages
from emoface.pipeline.definition import find_pipeline_file, parse_overrides, read_pipeline_file
from emoface.pipeline.stages import CURRENT, JOBS, NOT_RUN, STALE, UNFINISHED, Job, Stage, StageStatus
from emoface.progress import SILENT, Progress
from emoface.schema import CATEGORIES, PEOPLE_SCHEMA
from emoface.storage.cards import pipelines_dir
from emoface.storage.files import file_sha256, write_text
from emoface.storage.records import (
    ABSENT,
    JobRecord,
    code_fingerprint,
    hash_outputs,
    photo_inputs,
    record_path,
    to_settings,
    write_record,
)
from emoface.storage.settings import Count, Settings
from emoface.storage.tables import write_table

RUNS: list[str] = []


class ShoutConfig(Settings):
    text: Path
    out: Path
    mark: str = "!"
    times: Count = 1
    pause: float = 0.5
    loud: bool = True
    shares: tuple[float, float] = (0.5, 0.5)
    words: tuple[str, ...] = ()
    limit: int | None = None
    other: Path | None = None
    recipe: Mapping[str, Any] = {}


def run_shout(config: ShoutConfig, progress: Progress = SILENT) -> JobRecord:
    RUNS.append("shout")
    out = config.out / "shout.txt"
    write_text(out, config.text.read_text().upper() + config.mark * config.times)
    record = JobRecord(
        job="shout",
        settings=to_settings(config),
        inputs={str(config.text): file_sha256(config.text)},
        outputs=hash_outputs(config.out, [out]),
        counts={},
        code=code_fingerprint(__name__),
    )
    write_record(config.out, record)
    return record


class CountConfig(Settings):
    dir: Path
    fail: bool = False


def run_count(config: CountConfig, progress: Progress = SILENT) -> JobRecord:
    RUNS.append("count")
    if config.fail:
        raise TableError("counting failed")
    extra = config.dir / "extra.txt"
    text = (config.dir / "shout.txt").read_text() + (extra.read_text() if extra.is_file() else "")
    write_text(config.dir / "count.txt", str(sum(letter.isalpha() for letter in text)))
    inputs = [config.dir / "shout.txt", extra]
    record = JobRecord(
        job="count",
        settings=to_settings(config),
        inputs={str(path): file_sha256(path) if path.is_file() else ABSENT for path in inputs},
        outputs=hash_outputs(config.dir, [config.dir / "count.txt"]),
        counts={},
        code=code_fingerprint(__name__),
    )
    write_record(config.dir, record)
    return record


PIPELINE = """
[settings]
out = "work"
mark = "!"
times = 1

[[stage]]
job = "shout"
text = "text.txt"
out = "${out}"
mark = "${mark}"
times = "${times}"

[[stage]]
job = "count"
dir = "${out}"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a pipeline of the two stand-ins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(
        JOBS, "shout", Job(__name__, "ShoutConfig", "run_shout", "out", ("draft.txt",), ("drafts", "resume.txt"))
    )
    monkeypatch.setitem(JOBS, "count", Job(__name__, "CountConfig", "run_count"))
    RUNS.clear()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "p.toml").write_text(PIPELINE)
    return tmp_path


def _config(*overrides: str, rebuild: tuple[str, ...] = ()) -> PipelineConfig:
    return PipelineConfig("p.toml", parse_overrides(overrides), rebuild)


def _run(*overrides: str, rebuild: tuple[str, ...] = ()) -> list[str]:
    """Which jobs ran."""
    RUNS.clear()
    run_pipeline(_config(*overrides, rebuild=rebuild))
    return list(RUNS)


def _states(*overrides: str) -> dict[str, tuple[str, str]]:
    return {one.stage.name: (one.state, "; ".join(one.reasons)) for one in check_pipeline(_config(*overrides))}


def test_first_run_does_everything_and_the_second_nothing(folder: Path) -> None:
    states = _states()
    assert states["shout"] == states["count"] == (NOT_RUN, f"has not run in {folder / 'work'}")
    assert _run() == ["shout", "count"]
    assert (folder / "work/shout.txt").read_text() == "HELLO!"
    assert (folder / "work/count.txt").read_text() == "5"
    assert _states() == {"shout": (CURRENT, ""), "count": (CURRENT, "")}
    assert _run() == []


def test_looking_writes_nothing(folder: Path) -> None:
    _states()
    assert sorted(path.name for path in folder.iterdir()) == ["p.toml", "text.txt"]


def test_changed_setting_is_named_with_both_values() -> None:
    _run()
    states = _states("mark=?", "times=2")
    assert states["shout"] == (STALE, "mark was !, is ?; times was 1, is 2")
    assert states["count"] == (STALE, "reads what shout will write")
    assert _run("mark=?", "times=2") == ["shout", "count"]
    assert _states("mark=?", "times=2")["count"] == (CURRENT, "")


def test_stage_whose_inputs_come_out_the_same_does_not_run(folder: Path) -> None:
    _run()
    assert _states("shout.pause=3")["shout"] == (STALE, "pause was 0.5, is 3.0")
    assert _states("shout.pause=3")["count"] == (STALE, "reads what shout will write")
    assert _run("shout.pause=3") == ["shout"]
    assert _states("shout.pause=3") == {"shout": (CURRENT, ""), "count": (CURRENT, "")}


def test_changed_and_lost_inputs_are_named(folder: Path) -> None:
    _run()
    (folder / "text.txt").write_text("hallo")
    assert _states()["shout"] == (STALE, "text.txt changed")
    assert _run() == ["shout", "count"]
    (folder / "text.txt").unlink()
    assert _states()["shout"] == (STALE, f"{folder / 'text.txt'} is gone")


def test_same_bytes_at_another_time_change_nothing(folder: Path) -> None:
    _run()
    (folder / "text.txt").write_text("hello")
    os.utime(folder / "text.txt", ns=(1, 1))
    assert _run() == []


def test_same_size_and_time_with_other_bytes_is_seen(folder: Path) -> None:
    _run()
    before = (folder / "text.txt").stat()
    (folder / "text.new").write_text("HELLO")
    (folder / "text.new").replace(folder / "text.txt")
    os.utime(folder / "text.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert _states()["shout"] == (STALE, "text.txt changed")


def test_input_that_was_absent_makes_stale_once_it_is_there(folder: Path) -> None:
    _run()
    (folder / "work/extra.txt").write_text("abc")
    assert _states()["count"] == (STALE, "extra.txt is new")
    assert _run() == ["count"]
    assert (folder / "work/count.txt").read_text() == "8"


def test_changed_and_lost_outputs_are_written_again(folder: Path) -> None:
    _run()
    (folder / "work/count.txt").write_text("6")
    assert _states()["count"] == (STALE, "count.txt is not what count wrote")
    assert _run() == ["count"]
    (folder / "work/shout.txt").unlink()
    states = _states()
    assert states["shout"] == (STALE, "shout.txt is gone")
    assert states["count"][0] == STALE
    assert _run() == ["shout"]


def test_changed_code_makes_stale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run()
    monkeypatch.setattr(pipeline_stages, "code_fingerprint", lambda module: "another")
    assert _states() == {"shout": (STALE, "code changed"), "count": (STALE, "code changed")}


def test_setting_that_a_later_version_adds_or_drops_is_named(folder: Path) -> None:
    _run()
    path = record_path(folder / "work", "shout")
    record = json.loads(path.read_text())
    del record["settings"]["pause"]
    record["settings"]["old"] = 7
    path.write_text(json.dumps(record))
    assert _states()["shout"] == (STALE, "pause is new, 0.5; old is no setting any more, was 7")


def test_failed_stage_leaves_the_earlier_ones_current() -> None:
    with pytest.raises(TableError, match="counting failed"):
        _run("count.fail=true")
    states = _states("count.fail=true")
    assert states["shout"] == (CURRENT, "")
    assert states["count"][0] == NOT_RUN
    assert _run() == ["count"]


def test_unfinished_is_told_from_missing(folder: Path) -> None:
    (folder / "work").mkdir()
    (folder / "work/draft.txt").write_text("HEL")
    assert _states()["shout"] == (UNFINISHED, "draft.txt is there, but no record of a run that ended")
    assert _run() == ["shout", "count"]


def test_lost_record_of_an_earlier_stage_unsettles_what_reads_from_its_folder(folder: Path) -> None:
    _run()
    record_path(folder / "work", "shout").unlink()
    assert _states()["count"] == (STALE, "reads what shout will write")
    assert _run() == ["shout"]


def test_rebuild_runs_a_current_stage_from_the_start(folder: Path) -> None:
    _run()
    (folder / "work/drafts").mkdir()
    (folder / "work/drafts/0.txt").write_text("H")
    (folder / "work/resume.txt").write_text("H")
    assert _run(rebuild=("shout",)) == ["shout"]
    assert not (folder / "work/drafts").exists() and not (folder / "work/resume.txt").exists()
    with pytest.raises(SettingsError, match=r"--rebuild shot: p.toml has no stage 'shot'; did you mean 'shout'\?"):
        _run(rebuild=("shot",))


def test_finished_run_that_is_kept_is_replaced_only_when_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JOBS, "shout", dataclasses.replace(JOBS["shout"], is_kept=True))
    assert _run() == ["shout", "count"]
    assert _run() == []
    message = (
        r"stage 'shout': .*work holds a finished run that is stale \(mark was !, is \?\); replace it with --rebuild"
    )
    with pytest.raises(SettingsError, match=message):
        _run("mark=?")
    assert RUNS == [] and (folder / "work/shout.txt").read_text() == "HELLO!"
    assert _run("mark=?", "out=other") == ["shout", "count"]
    assert _run("mark=?", rebuild=("shout",)) == ["shout", "count"]
    RUNS.clear()
    replacing = dataclasses.replace(_config("mark=."), replaces_finished=True)
    run_pipeline(replacing)
    assert RUNS == ["shout", "count"] and (folder / "work/shout.txt").read_text() == "HELLO."
    run_pipeline(replacing)
    assert RUNS == ["shout", "count"]


def test_interrupted_rebuild_is_not_taken_for_current(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run()

    def interrupted(config: CountConfig, progress: Progress) -> JobRecord:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "run_count", interrupted)
        with pytest.raises(KeyboardInterrupt):
            _run(rebuild=("count",))
    assert _states()["count"][0] == NOT_RUN
    assert _run() == ["count"]


def test_moved_folder_stays_current(folder: Path) -> None:
    _run()
    (folder / "work").rename(folder / "elsewhere")
    assert _states("out=elsewhere") == {"shout": (CURRENT, ""), "count": (CURRENT, "")}


def test_record_of_a_plain_command_counts_with_its_relative_paths(folder: Path) -> None:
    run_shout(ShoutConfig(text=Path("text.txt"), out=Path("work")))
    assert _states()["shout"] == (CURRENT, "")
    assert _run() == ["count"]


def test_current_does_not_depend_on_where_the_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run()
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    config = PipelineConfig("../p.toml", {"out": "../work", "shout.text": "../text.txt"})
    assert [one.state for one in check_pipeline(config)] == [CURRENT, CURRENT]


def test_observer_receives_stages_in_order() -> None:
    calls: list[str] = []

    class Observer:
        def note(self, text: str) -> None:
            calls.append(f"note {text}")

        def skip(self, status: StageStatus) -> None:
            calls.append(f"skip {status.stage.name}")

        def begin(self, status: StageStatus) -> AbstractContextManager[Progress]:
            calls.append(f"begin {status.stage.name}: {status.state}: {'; '.join(status.reasons)}")
            return nullcontext(SILENT)

        def end(self, stage: Stage, record: JobRecord) -> None:
            calls.append(f"end {stage.name} {record.job}")

    _run()
    run_pipeline(_config("mark=?"), Observer())
    assert calls == [
        "begin shout: stale: mark was !, is ?",
        "end shout shout",
        "begin count: stale: shout.txt changed",
        "end count count",
    ]
    calls.clear()
    run_pipeline(_config("mark=?", rebuild=("count",)), Observer())
    assert calls == ["skip shout", "begin count: current: to be rebuilt", "end count count"]


def test_photos_that_come_go_or_change_make_stale(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = folder / "emotic/mscoco/images"
    photos.mkdir(parents=True)
    (photos / "a.jpg").write_bytes(b"a")
    images = ["mscoco/images/a.jpg", "mscoco/images/b.jpg", "mscoco/images/a.jpg"]
    rows = [
        {"index": k, "person_id": f"{image}#{k}", "image": image, "labels": [0] * len(CATEGORIES)}
        for k, image in enumerate(images)
    ]
    write_table(folder / "work/people.parquet", pa.Table.from_pylist(rows, schema=PEOPLE_SCHEMA), PEOPLE_SCHEMA)

    def run_looking(config: CountConfig, progress: Progress) -> JobRecord:
        RUNS.append("count")
        inputs = photo_inputs(folder / "emotic", images)
        record = JobRecord("count", to_settings(config), inputs, {}, {}, code=code_fingerprint(__name__))
        write_record(config.dir, record)
        return record

    monkeypatch.setattr(sys.modules[__name__], "run_count", run_looking)
    assert _run() == ["shout", "count"]
    assert _run() == []
    changed = (STALE, f"photos below {folder / 'emotic'} changed")
    (photos / "other.jpg").write_bytes(b"not one of them")
    assert _states()["count"] == (CURRENT, "")
    (photos / "b.jpg").write_bytes(b"b")
    assert _states()["count"] == changed
    assert _run() == ["count"]
    (photos / "a.jpg").write_bytes(b"aa")
    assert _run() == ["count"]
    (photos / "a.jpg").unlink()
    assert _states()["count"] == changed


@pytest.mark.parametrize(
    ("key", "text", "field", "value"),
    [
        ("times", "3", "times", 3),
        ("shout.pause", "2", "pause", 2.0),
        ("shout.pause", "1e-3", "pause", 0.001),
        ("shout.loud", "false", "loud", False),
        ("mark", "7", "mark", "7"),
        ("mark", "", "mark", ""),
        ("shout.shares", "0.25/0.75", "shares", (0.25, 0.75)),
        ("shout.words", "a, b,c", "words", ("a", "b", "c")),
        ("shout.limit", "4", "limit", 4),
        ("shout.limit", "", "limit", None),
        ("shout.other", "", "other", None),
    ],
)
def test_text_of_the_command_line_takes_the_type_of_its_field(key: str, text: str, field: str, value: Any) -> None:
    stage = read_stages(_config(f"{key}={text}"))[0]
    found = getattr(stage.config, field)
    assert (found, type(found)) == (value, type(value))


def test_paths_become_absolute(folder: Path) -> None:
    stage = read_stages(_config("shout.other=a/../b"))[0]
    assert (stage.config.text, stage.config.other, stage.out) == (
        folder / "text.txt",
        folder / "b",
        folder / "work",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("times = 2.5", r"stage 'shout': times is 2\.5, expected a whole number"),
        ("times = true", r"stage 'shout': times is True, expected a whole number"),
        ('pause = "long"', r"stage 'shout': pause is 'long', expected a number"),
        ("loud = 1", r"stage 'shout': loud is 1, expected true or false"),
        ("mark = 1", r"stage 'shout': mark is 1, expected text"),
        ("other = 3", r"stage 'shout': other is 3, expected a path"),
        ("shares = [0.5]", r"stage 'shout': shares has 1 values, expected 2"),
        ("shares = [0.5, true]", r"stage 'shout': shares is True, expected a number"),
        ("words = 3", r"stage 'shout': words is 3, expected a list"),
        ("words = [3]", r"stage 'shout': words is 3, expected text"),
        ("times = 0", r"stage 'shout': times is 0, expected 1 or more"),
        ("marks = 1", r"stage 'shout': shout has no setting 'marks'; did you mean 'mark'\?"),
        ("mark = {a = 1}", r"stage 'shout': mark is \{'a': 1\}, expected text"),
        ("recipe = {a = {b = 1}}", r"stage 1: recipe: a is \{'b': 1\}, expected text, a number"),
        ("recipe = 3", r"stage 'shout': recipe is 3, expected a table; one value of it is set as recipe\.KEY"),
        ("mark = 2020-01-01", r"stage 1: mark is .*, expected text, a number"),
    ],
)
def test_bad_values_name_file_stage_key_expected_and_found(folder: Path, line: str, message: str) -> None:
    (folder / "p.toml").write_text(f'[[stage]]\njob = "shout"\ntext = "text.txt"\nout = "work"\n{line}\n')
    with pytest.raises(SettingsError, match=rf"^p\.toml: {message}"):
        read_stages(_config())


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[settings]", "[setings]", r"p\.toml: 'setings' is not known here; did you mean 'settings'\?"),
        ("[[stage]]", "[[stages]]", r"p\.toml: 'stages' is not known here; did you mean 'stage'\?"),
        ('job = "count"', 'job = "cuont"', r"stage 'cuont': no job is called 'cuont'; did you mean 'count'\?"),
        ('job = "count"', 'jbo = "count"', r"stage 2 names no job; expected job = \"parse\" or another, found \{'jbo'"),
        ('job = "count"', "job = 3", r"stage 2: job is 3, expected a word"),
        ('job = "count"', 'job = "count"\nname = "a.b"', r"stage 2: name is 'a\.b', expected a word"),
        ('job = "count"\ndir', 'job = "shout"\nout', r"two stages are called 'shout'; give each a name"),
        ('dir = "${out}"', "", r"stage 'count': count needs 'dir', and the stage does not set it"),
        ('"${mark}"', '"${marc}"', r"setting 'mark' is used by no stage"),
        (
            "times = 1",
            "times = 1\nspare = 2",
            r"setting 'spare' is used by no stage; write \$\{spare\} where it belongs",
        ),
        ("times = 1", "times = {a = 1}", r"settings: times is \{'a': 1\}, expected text, a number"),
        (
            'dir = "${out}"',
            'dir = "${uot}/x"',
            r"dir uses \$\{uot\}, which \[settings\] does not set; did you mean 'out'",
        ),
        ("[settings]", "[settings", r"p\.toml: not TOML \("),
    ],
)
def test_bad_files_say_what_is_wrong(folder: Path, before: str, after: str, message: str) -> None:
    assert before in PIPELINE
    (folder / "p.toml").write_text(PIPELINE.replace(before, after))
    with pytest.raises(SettingsError, match=message):
        read_stages(_config())


def test_empty_file_has_no_stages(folder: Path) -> None:
    (folder / "p.toml").write_text("")
    with pytest.raises(SettingsError, match=r"p\.toml: no stages; expected one \[\[stage\]\] table for each"):
        read_stages(_config())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("uot=x", r"--set uot: p\.toml has no setting 'uot'; did you mean 'out'\?"),
        ("shuot.mark=x", r"--set shuot\.mark: p\.toml has no stage 'shuot'; did you mean 'shout'\?"),
        ("shout.marc=x", r"stage 'shout': shout has no setting 'marc'; did you mean 'mark'\?"),
        ("times=two", r"stage 'shout': times is 'two', expected a whole number"),
        ("shout.loud=yes", r"stage 'shout': loud is 'yes', expected true or false"),
        ("out=", r"stage 'shout': out is '', expected a path"),
        ("out", r"--set out: expected KEY=VALUE, such as --set out=work"),
        ("=3", r"--set =3: expected KEY=VALUE"),
    ],
)
def test_bad_overrides_say_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_stages(_config(override))


def test_two_stages_of_one_job_need_folders_of_their_own(folder: Path) -> None:
    again = '\n[[stage]]\njob = "shout"\nname = "again"\ntext = "text.txt"\nout = "./{}"\n'
    (folder / "p.toml").write_text(PIPELINE + again.format("work"))
    with pytest.raises(SettingsError, match=r"stages 'shout' and 'again' both run shout in .*; give one another 'out'"):
        read_stages(_config())
    (folder / "p.toml").write_text(PIPELINE + again.format("other"))
    assert _run() == ["shout", "count", "shout"]
    assert set(_states()) == {"shout", "count", "again"}


def test_variables_keep_their_type_alone_and_become_text_inside_text(folder: Path) -> None:
    text = PIPELINE.replace('mark = "${mark}"', 'mark = "<${mark}${times}>"\nwords = ["${mark}", "b"]')
    (folder / "p.toml").write_text(text)
    pipeline = read_pipeline_file("p.toml", {"mark": "?"})
    values = pipeline.stages[0].values
    assert values["mark"] == "<?1>"
    assert values["words"] == ["?", "b"]
    assert values["times"] == 1
    assert pipeline.settings == {"out": "work", "mark": "?", "times": 1}


def test_field_that_is_a_table_is_filled_and_overridden_value_by_value(folder: Path) -> None:
    (folder / "p.toml").write_text(
        PIPELINE.replace('text = "text.txt"', 'text = "text.txt"\nrecipe = {mark = "${mark}", rate = 0.5, epochs = 9}')
    )
    overrides = ("shout.recipe.epochs=3", "shout.recipe.loss=focal", "shout.recipe.steps=[1, 2]", "mark=?")
    assert read_stages(_config(*overrides))[0].config.recipe == {
        "mark": "?",
        "rate": 0.5,
        "epochs": 3,
        "loss": "focal",
        "steps": [1, 2],
    }
    _run()
    assert read_stages(_config("mark=", "shout.recipe.rate="))[0].config.recipe == {"epochs": 9}
    assert _states("shout.recipe.rate=0.25")["shout"][0] == STALE
    assert _run("shout.recipe.rate=0.25") == ["shout"]


def test_pipelines_that_come_with_emoface_are_found_by_name() -> None:
    assert (
        find_pipeline_file("emotic_face")
        == find_pipeline_file("emotic_face.toml")
        == pipelines_dir() / "emotic_face.toml"
    )
    with pytest.raises(SettingsError, match=r"emotic_fase: no such pipeline file, .*; did you mean 'emotic_face'\?"):
        find_pipeline_file("emotic_fase")
    with pytest.raises(SettingsError, match=r"elsewhere/demo\.toml: no such pipeline file"):
        find_pipeline_file("elsewhere/demo.toml")


def test_file_of_that_name_wins_over_the_package(folder: Path) -> None:
    (folder / "demo").write_text(PIPELINE)
    assert find_pipeline_file("demo") == Path("demo")


LAST_STAGES = {
    "demo": ["report", "train", "evaluate"],
    "emotic_face": ["faces", "split", "report"],
    "mter1": ["task1", "mter1", "evaluate-mter1"],
    "mter2": ["task1", "mter2", "evaluate-mter2"],
    "ablation": ["evaluate-mter2", "evaluate-kosti", "evaluate-caer-net-s", "compare"],
    "table_4_3": ["evaluate-affective-graph", "evaluate-emoticon", "evaluate-probe", "compare"],
}


@pytest.mark.parametrize("path", sorted(pipelines_dir().glob("*.toml")), ids=lambda path: path.stem)
def test_pipelines_that_come_with_emoface_fit_their_jobs(path: Path) -> None:
    stages = read_stages(PipelineConfig(str(path), {}))
    assert all(one.state == NOT_RUN for one in check_pipeline(PipelineConfig(str(path), {})))
    assert [stage.name for stage in stages][-len(LAST_STAGES[path.stem]) :] == LAST_STAGES[path.stem]


def test_table_4_3_trains_every_system_for_the_epochs_of_its_preset_unless_told() -> None:
    def recipes(*sets: str) -> list[dict[str, Any]]:
        config = PipelineConfig("table_4_3", dict(one.split("=", 1) for one in sets))
        return [dict(stage.config.recipe) for stage in read_stages(config) if stage.job_name == "train"]

    assert [one for one in recipes() if one] == [{"region_source": "grid"}]
    assert [one["epochs"] for one in recipes("epochs=3")] == [3] * 7
    stages = {stage.name: stage.config for stage in read_stages(PipelineConfig("table_4_3", {}))}
    assert (stages["probe"].backbone, stages["probe"].weights) == ("mobilenet_v2", "library")
    assert {run.name for run in stages["compare"].runs} == {
        *("mter1", "mter2", "kosti", "caer-net-s", "affective-graph", "emoticon", "probe")
    }


@pytest.mark.parametrize("word", sorted(JOBS))
def test_every_job_of_the_registry_is_there(word: str) -> None:
    job = JOBS[word]
    module = __import__(job.module, fromlist=["_"])
    assert isinstance(getattr(module, job.run), Callable)  # type: ignore[arg-type]
    config = getattr(module, job.config)
    assert job.folder in config.model_fields or isinstance(getattr(config, job.folder), property)
    assert job.photo_table is None or isinstance(getattr(module, job.photo_table), Callable)  # type: ignore[arg-type]


def test_status_of_the_real_jobs_starts_without_torch(folder: Path) -> None:
    code = (
        "import sys; from emoface.jobs.pipeline import PipelineConfig, check_pipeline; "
        "check_pipeline(PipelineConfig('emotic_face', {})); print({'torch', 'onnxruntime'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
