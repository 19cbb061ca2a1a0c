"""Prediction on folders, patterns, videos and a camera."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mter_data import write_photos_and_tables
from run_data import write_finished_run

from emoface.cli import main
from emoface.errors import ImageError, SettingsError
from emoface.inference.predictor import Predictor
from emoface.inference.videos import FrameStep, open_camera, open_video
from emoface.jobs.predict import PredictConfig, run_predict
from emoface.reporting.drawing import DrawnTrack, draw_tracks
from emoface.storage.json_lines import keep_lines, open_lines, read_lines
from emoface.storage.media import list_media
from emoface.vision.crops import Photo
from emoface.vision.detections import Detections

WH = (64, 48)


class _WalkingDetector:
    """Finds two faces, of which the right one moves by two pixels from photo to photo."""

    uses_one_core = True

    def __init__(self) -> None:
        self.n_photos = 0

    def detect(self, images: list[Photo]) -> list[Detections]:
        found = []
        for _ in images:
            left = 36 + 2 * self.n_photos
            xyxy = np.array([[left, 5, left + 12, 17], [8, 5, 20, 17]], np.float32)
            found.append(Detections(xyxy, np.ones((2, 5, 2), np.float32), np.full(2, 0.9, np.float32)))
            self.n_photos += 1
        return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; to be read only."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("run")
    return write_finished_run(root / "mter2", write_photos_and_tables(root, 4), predicts_vad=True)


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> _WalkingDetector:
    found = _WalkingDetector()
    monkeypatch.setattr(Predictor, "detector", found)
    return found


def _write_photo(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((WH[1], WH[0], 3), value, np.uint8))
    return path


def _write_video(path: Path, n_frames: int, codec: str = "MJPG", fps: float = 10.0) -> Path:
    """Frames of one colour each: frame k has the red value 20 k; with noise in the right half."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, WH)
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for k in range(n_frames):
        frame = np.zeros((WH[1], WH[0], 3), np.uint8)
        frame[..., 2] = 20 * k
        frame[:, WH[0] // 2 :] = rng.integers(0, 255, (WH[1], WH[0] // 2, 3))
        writer.write(frame)
    writer.release()
    return path


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Which files are meant


def test_folders_and_patterns_are_listed_once_sorted_and_without_results(tmp_path: Path) -> None:
    names = ("b.JPG", "a/z.png", "a/clip.mp4", "a/notes.txt", ".hidden/x.jpg", "a/.x.jpg", "out/b.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    out = tmp_path / "out"
    photos = (tmp_path / "a/z.png", tmp_path / "b.JPG")
    assert list_media([tmp_path], out).photos == photos and list_media([tmp_path], out).videos == ()
    everything = list_media([tmp_path / "**/*", tmp_path, Path("gone.xyz"), "s3://bucket/c.jpg"], out)
    assert everything.photos == (*photos, Path("gone.xyz"), "s3://bucket/c.jpg")
    assert everything.videos == (tmp_path / "a/clip.mp4",)
    assert list_media([tmp_path / "[ab].JPG"], out).photos == (tmp_path / "b.JPG",)
    assert list_media([tmp_path / "*.gif"], out).photos == (tmp_path / "*.gif",)  # a photo that is missing
    (tmp_path / "b[1].jpg").touch()
    assert list_media([tmp_path / "b[1].jpg"], out).photos == (tmp_path / "b[1].jpg",)


def test_folders_that_cannot_be_meant(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(
        SettingsError, match=r"a: no photos in this folder or below it; expected files that end in \.jpg"
    ):
        list_media([tmp_path / "a"], tmp_path / "out")
    with pytest.raises(SettingsError, match="the results would be written among the photos; choose another folder"):
        list_media([tmp_path / "a"], tmp_path / "b" / ".." / "a")
    with pytest.raises(SettingsError, match="videos are read from files of this machine"):
        list_media(["s3://bucket/a.mp4"], tmp_path)


# Folders


@pytest.mark.usefixtures("detector")
def test_folder_is_predicted_and_unreadable_photos_are_named(run: Path, tmp_path: Path) -> None:
    _write_photo(tmp_path / "in" / "a.png")
    _write_photo(tmp_path / "in" / "more" / "a.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "out"
    answer = CliRunner().invoke(main, ["predict", str(run), str(tmp_path / "in"), "--out", str(out)])
    assert answer.exit_code == 1
    assert "predict: 3\n" in answer.stderr
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("Error: 1 of 3 photos could not be processed: ") and "broken.jpg: not a readable" in last
    lines = _lines(out / "predictions.jsonl")
    assert [line["name"] for line in lines] == ["a", "a-2"]
    for line in lines:
        told = json.loads((out / f"{line['name']}.json").read_text(encoding="utf-8"))
        assert {name: line[name] for name in told} == told and len(told["people"]) == 2
        assert line.keys() - told.keys() == {"name", "image_state"}
        assert (out / f"{line['name']}.png").is_file()


def test_interrupted_folder_goes_on(
    run: Path, tmp_path: Path, detector: _WalkingDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = [_write_photo(tmp_path / "in" / f"{name}.png") for name in "abcd"]
    config = PredictConfig(run=run, images=(tmp_path / "in",), out=tmp_path / "out")
    lines_path = tmp_path / "out" / "predictions.jsonl"
    find = _WalkingDetector.detect

    def interrupt_at_third(self: _WalkingDetector, images: list[Photo]) -> list[Detections]:
        if self.n_photos == 2:
            raise KeyboardInterrupt
        return find(self, images)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_WalkingDetector, "detect", interrupt_at_third)
        run_predict(config)
    assert [line["name"] for line in _lines(lines_path)] == ["a", "b"]
    first = lines_path.read_text(encoding="utf-8")
    with lines_path.open("a", encoding="utf-8") as cut_off:
        cut_off.write('{"name": "c", "peo')
    counts = run_predict(config).counts
    assert counts == {"photos": 4, "photos_left_out": 0, "photos_done_before": 2, "people": 8, "faces": 8}
    assert [line["name"] for line in _lines(lines_path)] == ["a", "b", "c", "d"] and detector.n_photos == 4
    assert lines_path.read_text(encoding="utf-8").startswith(first)

    shutil.copy(_write_photo(tmp_path / "other.png", 200), photos[1])  # another photo of the same name
    (tmp_path / "out" / "d.png").unlink()
    assert run_predict(config).counts["photos_done_before"] == 2
    assert sorted(line["name"] for line in _lines(lines_path)) == ["a", "b", "c", "d"]
    assert "photos_done_before" not in run_predict(config.replace(top=3)).counts  # other settings
    assert run_predict(config.replace(top=3, smooth_seconds=0)).counts["photos_done_before"] == 4


@pytest.mark.usefixtures("detector")
def test_single_named_photo_has_its_drawing_and_json_alone(run: Path, tmp_path: Path) -> None:
    image = _write_photo(tmp_path / "a.png")
    record = run_predict(PredictConfig(run=run, images=(image,), out=tmp_path / "out"))
    assert sorted(record.outputs) == ["a.json", "a.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png", "records"]


def test_boxes_are_for_one_photo(run: Path, tmp_path: Path) -> None:
    for name in "ab":
        _write_photo(tmp_path / "in" / f"{name}.png")
    with pytest.raises(SettingsError, match="boxes need exactly one photo, found 2 photos"):
        run_predict(PredictConfig(run=run, images=(tmp_path / "in",), boxes=((0, 0, 5, 5),), out=tmp_path / "out"))
    with pytest.raises(SettingsError, match="boxes gives the people of photos, not of videos and cameras"):
        PredictConfig(run=run, images=(Path("a.mp4"),), boxes=((0, 0, 5, 5),))
    with pytest.raises(SettingsError, match="every and fps both choose frames"):
        PredictConfig(run=run, images=(Path("a.mp4"),), every=2, fps=3)


def test_lines_without_a_key_or_with_a_damaged_one_are_written_again(tmp_path: Path) -> None:
    path, key_path = tmp_path / "a.jsonl", tmp_path / "key.json"
    for damage in ("{", "[]", '{"key": 3}'):
        with open_lines(path, adds=False) as write:
            write({"a": 1})
        key_path.write_text(damage, encoding="utf-8")
        keep_lines(path, key_path, "new", lambda _: True)
        assert list(read_lines(path)) == []
    with open_lines(path, adds=True) as write:
        write({"a": 1})
        write({"a": 2})
    keep_lines(path, key_path, "new", lambda line: line["a"] == 2)
    assert list(read_lines(path)) == [{"a": 2}]
    assert list(read_lines(tmp_path / "gone.jsonl")) == []


# Videos


@pytest.mark.parametrize(
    ("step", "numbers"),
    [
        (FrameStep(), [0, 1, 2, 3, 4, 5, 6]),
        (FrameStep(every=3), [0, 3, 6]),
        (FrameStep(fps=5.0), [0, 2, 4, 6]),
        (FrameStep(fps=4.0), [0, 3, 5]),  # the first frames at or after 0, 0.25 and 0.5 seconds
        (FrameStep(fps=60.0), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_frames_are_chosen_by_number_or_by_time(tmp_path: Path, step: FrameStep, numbers: list[int]) -> None:
    for path in (_write_video(tmp_path / "a.avi", 7), _write_video(tmp_path / "a.mp4", 7, "mp4v")):
        with open_video(path) as source:
            frames = list(source.frames(step))
            assert (source.fps, source.n_frames, source.find_damage()) == (10.0, 7, None)
        assert [frame.number for frame in frames] == numbers
        assert [frame.seconds for frame in frames] == pytest.approx([number / 10 for number in numbers])
        for frame in frames:
            assert frame.photo.shape == (WH[1], WH[0], 3)
            assert frame.photo[:, :24].mean(axis=(0, 1)) == pytest.approx([20 * frame.number, 0, 0], abs=9)  # RGB


def test_video_has_lines_tracks_and_an_annotated_video(run: Path, tmp_path: Path, detector: _WalkingDetector) -> None:
    path = _write_video(tmp_path / "clip.avi", 6)
    out = tmp_path / "out"
    words = ["predict", str(run), str(path), "--out", str(out), "--every", "2", "--smooth-seconds", "0.4"]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    assert detector.n_photos == 3
    lines = _lines(out / "clip.frames.jsonl")
    assert [(line["frame"], line["seconds"]) for line in lines] == [(0, 0.0), (2, 0.2), (4, 0.4)]
    for k, line in enumerate(lines):
        assert [one["track"] for one in line["people"]] == [1, 2]
        assert line["people"][1]["face_bbox"] == [36 + 2 * k, 5, 48 + 2 * k, 17]
        assert line["people"][0]["body_from"] == "face" and "true_labels" not in line["people"][0]
        for person in range(2):
            kept = [one["people"][person]["probabilities"]["Peace"] for one in lines[max(0, k - 1) : k + 1]]
            assert line["people"][person]["smoothed_probabilities"]["Peace"] == pytest.approx(np.mean(kept))
    with open_video(out / "clip.annotated.mp4") as annotated:
        frames = list(annotated.frames(FrameStep()))
        assert annotated.fps == pytest.approx(5.0)
    assert len(frames) == 3 and frames[0].photo.shape == (480, 640, 3)
    blue = np.abs(frames[0].photo.astype(int) - [0x00, 0x72, 0xB2]).sum(axis=2) < 60
    assert blue[50:170, 76:84].any(axis=1).mean() > 0.9  # left side of the first face: x = 8 of 64, drawn at 640
    record = json.loads((out / "records" / "predict.json").read_text(encoding="utf-8"))
    assert record["counts"] == {"videos": 1, "frames": 3, "tracks": 2, "people": 6, "faces": 6}
    assert sorted(record["outputs"]) == ["clip.annotated.mp4", "clip.frames.jsonl"]


@pytest.mark.usefixtures("detector")
def test_videos_that_cannot_be_read_do_not_stop_the_others(run: Path, tmp_path: Path) -> None:
    good = _write_video(tmp_path / "good.avi", 2)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.avi").write_bytes(b"no video" * 50)
    whole = _write_video(tmp_path / "whole.mp4", 5, "mp4v").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    videos = [tmp_path / name for name in ("empty.mp4", "text.avi", "cut.mp4", "gone.mkv")]
    with pytest.raises(ImageError, match="4 of 5 videos could not be processed") as raised:
        run_predict(PredictConfig(run=run, images=(*videos, good), out=tmp_path / "out"))
    for path in videos[:3]:
        assert f"{path}: not a readable video: damaged, empty, or of a codec that OpenCV lacks" in str(raised.value)
    assert f"{videos[3]}: no such video" in str(raised.value)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["good.annotated.mp4", "good.frames.jsonl", "records"]


def test_libraries_say_nothing_about_a_damaged_video(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(_write_video(tmp_path / "whole.mp4", 5, "mp4v").read_bytes()[:400])
    code = (
        "import pathlib, sys\n"
        "from emoface.errors import ImageError\n"
        "from emoface.inference.videos import open_video\n"
        "try:\n"
        "    open_video(pathlib.Path(sys.argv[1]))\n"
        "except ImageError as error:\n"
        "    print(error)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert answer.stdout.startswith(f"{path}: not a readable video") and answer.stderr == ""


@pytest.mark.usefixtures("detector")
def test_video_that_ends_before_its_time_keeps_its_frames(run: Path, tmp_path: Path) -> None:
    content = _write_video(tmp_path / "whole.avi", 10).read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"cut\.avi: its frames end after 0\.\d of 1\.0 seconds, as if"):
        run_predict(PredictConfig(run=run, images=(path,), out=tmp_path / "out"))
    lines = _lines(tmp_path / "out" / "cut.frames.jsonl")
    assert 2 <= len(lines) <= 8
    with open_video(tmp_path / "out" / "cut.annotated.mp4") as annotated:
        assert annotated.n_frames == len(lines)


def test_frames_are_drawn_with_even_sides_and_without_people() -> None:
    frame = np.full((481, 641, 3), 60, np.uint8)
    assert np.array_equal(draw_tracks(frame, []), frame[:480, :640])
    one = DrawnTrack(2, (100, 100, 300, 400), (180, 200, 220, 260), ("Peace 62 %",))
    drawn = draw_tracks(frame, [one])
    is_drawn = (drawn != 60).any(axis=2)
    assert is_drawn[250, 100] and is_drawn[250, 300] and is_drawn[230, 180] and not is_drawn[300, 150]
    assert is_drawn[105:130, 105:115].all() and not is_drawn[:95].any()  # the ground of number and label


# A camera


class _CameraOfFile:
    """A camera whose pictures are those of a video; after some of them Ctrl-C is pressed."""

    def __init__(self, path: Path, n_frames: int) -> None:
        self._capture = REAL_CAPTURE(str(path))
        self._n_left = n_frames

    def grab(self) -> bool:
        if self._n_left == 0:
            raise KeyboardInterrupt
        self._n_left -= 1
        return bool(self._capture.grab())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._capture, name)


REAL_CAPTURE = cv2.VideoCapture


@pytest.fixture
def camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that connects a camera 0 of 8 frames, and says after how many Ctrl-C is pressed."""
    path = _write_video(tmp_path / "camera.avi", 8)

    def connect(n_frames: int) -> None:
        def capture(source: int | str) -> Any:
            return _CameraOfFile(path, n_frames) if source == 0 else REAL_CAPTURE(source)

        monkeypatch.setattr(cv2, "VideoCapture", capture)

    return connect


@pytest.mark.usefixtures("detector")
@pytest.mark.parametrize(("n_frames", "n_expected"), [(3, 3), (99, 8)])
def test_camera_stops_at_ctrl_c_and_keeps_its_frames(
    run: Path, tmp_path: Path, camera: Callable[[int], None], n_frames: int, n_expected: int
) -> None:
    camera(n_frames)
    out = tmp_path / "out"
    answer = CliRunner().invoke(main, ["predict", str(run), "--camera", "0", "--out", str(out)])
    assert answer.exit_code == 0, answer.output
    assert "camera 0: press Ctrl-C to stop" in answer.stderr
    lines = _lines(out / "camera-0.frames.jsonl")
    assert [line["frame"] for line in lines] == list(range(n_expected))
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds)
    with open_video(out / "camera-0.annotated.mp4") as annotated:
        assert annotated.fps == pytest.approx(10.0)
        assert annotated.n_frames == pytest.approx(10 * seconds[-1] + 1, abs=1)
    camera(1)
    run_predict(PredictConfig(run=run, camera=0, out=out))
    assert (
        len(_lines(out / "camera-0-2.frames.jsonl")) == 1 and len(_lines(out / "camera-0.frames.jsonl")) == n_expected
    )


def test_camera_frames_have_the_time_of_the_clock(camera: Callable[[int], None]) -> None:
    camera(99)
    times = iter((100.0, 100.5, 100.9, 101.1, 102.0, 102.1, 102.2, 104.0, 104.5))
    with open_camera(0, lambda: next(times)) as source:
        frames = list(source.frames(FrameStep(fps=1.0)))
        assert source.find_damage() is None
    assert [(frame.number, round(frame.seconds, 6)) for frame in frames] == [(0, 0.5), (2, 1.1), (3, 2.0), (6, 4.0)]


@pytest.mark.usefixtures("detector")
def test_camera_that_is_stopped_before_its_first_frame(
    run: Path, tmp_path: Path, camera: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    camera(99)

    def interrupt(*_: object) -> list[Detections]:
        raise KeyboardInterrupt

    monkeypatch.setattr(_WalkingDetector, "detect", interrupt)
    with pytest.raises(ImageError, match=r"1 of 1 cameras could not be .*: stopped before its first frame"):
        run_predict(PredictConfig(run=run, camera=0, out=tmp_path / "out"))
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_camera_that_is_not_there(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="camera 97: cannot be opened; check that it is connected"):
        run_predict(PredictConfig(run=run, camera=97, out=tmp_path / "out"))
    assert not (tmp_path / "out" / "camera-97.frames.jsonl").exists()
