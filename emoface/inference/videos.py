"""Frames of videos and cameras, and the writer of annotated videos; all of it by OpenCV.

OpenCV's order of the colours, BGR, is nowhere but in this module.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np

from emoface.errors import ImageError
from emoface.storage.files import atomic_path
from emoface.vision.crops import Photo

USUAL_FPS = 25.0
"""Frames per second of a video that does not say it."""
CAMERA_FPS = 10.0
"""Frames per second of the annotated video of a camera; frames are repeated as long as a prediction takes."""

_MAX_FPS = 1000.0  # of a video; files without a constant rate may give a nonsensical one
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        number: Position in the video, from 0.
        seconds: Time from the start of the video; for a camera, since it was opened.
        photo: (height, width, 3) uint8, RGB.
    """

    number: int
    seconds: float
    photo: Photo


@dataclass(frozen=True)
class FrameStep:
    """Which frames are read.

    Attributes:
        every: Every how many frames one is read.
        fps: Number of frames to read per second of the video, in place of ``every``; None reads by ``every``.
    """

    every: int = 1
    fps: float | None = None


def _open_capture(source: int | str) -> cv2.VideoCapture:
    """Opens a video or camera without the messages of OpenCV and FFmpeg, in whose place errors are raised here."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet; OpenCV reads it at the first video
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(source)
    finally:
        cv2.utils.logging.setLogLevel(level)


class VideoSource:
    """An open video or camera; a context manager that closes it.

    Attributes:
        name: Path of the video, or name of the camera, for messages.
        is_camera: Whether it is a camera, whose frames have the time at which they are read.
        fps: Frames per second.
        n_frames: Number of frames that the video says it has; 0 if that is not known.
    """

    def __init__(self, source: Path | int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.is_camera = isinstance(source, int)
        self._clock = clock
        self._opened = clock()
        self._capture = _open_capture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            self._capture.release()
            raise ImageError(
                f"{name}: cannot be opened; check that it is connected, and that no other program uses it"
                if self.is_camera
                else f"{name}: not a readable video: damaged, empty, or of a codec that OpenCV lacks; convert it, for "
                "example with 'ffmpeg -i VIDEO -c:v libx264 NEW.mp4'"
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if math.isfinite(fps) and 0 < fps <= _MAX_FPS else USUAL_FPS
        n_frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.n_frames = int(n_frames) if not self.is_camera and 0 < n_frames < 2**31 else 0
        self._n_read = 0
        self._end_seconds = 0.0
        if not self._capture.grab() or not self._capture.retrieve()[0]:
            self._capture.release()
            kind = "camera" if self.is_camera else "video"
            raise ImageError(
                f"{name}: no frame can be read; the {kind} is empty, damaged, or of a codec that OpenCV lacks"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.release()

    def frames(self, step: FrameStep) -> Iterator[Frame]:
        """Yields the frames that a step selects, up to the last frame that can be read; may be called once."""
        previous = -1
        is_grabbed = True  # the first frame, when the source was opened
        while is_grabbed:
            number, seconds = self._n_read, self._read_time()
            self._n_read += 1
            self._end_seconds = seconds + 1 / self.fps
            chosen = number // step.every if step.fps is None else math.floor(seconds * step.fps + _ROUNDING)
            if chosen != previous:
                previous = chosen
                is_read, pixels = self._capture.retrieve()
                if not is_read:
                    self._end_seconds = seconds
                    return
                yield Frame(number, seconds, np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))
            is_grabbed = self._capture.grab()

    def count_selected(self, step: FrameStep) -> int:
        """The number of frames that a step selects, as far as the video says how many it has; else 0."""
        if step.fps is None or step.fps >= self.fps:
            return -(-self.n_frames // step.every)
        return math.ceil(self.n_frames / self.fps * step.fps)

    def written_fps(self, step: FrameStep) -> float:
        """Frames per second of a video of the selected frames, which makes it as long as this one."""
        if self.is_camera:
            return step.fps or CAMERA_FPS
        return self.fps / step.every if step.fps is None else min(step.fps, self.fps)

    def find_damage(self) -> str | None:
        """Says that the video ended before its time, after all of its frames were read; None if it did not."""
        said = self.n_frames / self.fps
        if self._end_seconds >= 0.9 * said:
            return None
        return (
            f"{self.name}: its frames end after {self._end_seconds:.1f} of {said:.1f} seconds, as if the file were cut "
            "off; the frames up to there were processed"
        )

    def _read_time(self) -> float:
        if self.is_camera:
            return self._clock() - self._opened
        seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        is_known = math.isfinite(seconds) and seconds > self._end_seconds - 1 / self.fps
        return seconds if is_known else self._n_read / self.fps


def open_video(path: Path) -> VideoSource:
    """Opens a video.

    Raises:
        ImageError: The file is missing, or OpenCV cannot read it.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such video")
    return VideoSource(path, str(path))


def open_camera(index: int, clock: Callable[[], float] = time.monotonic) -> VideoSource:
    """Opens a camera of this machine.

    Args:
        index: Number of the camera, from 0.
        clock: Gives the time in seconds.

    Raises:
        ImageError: The camera cannot be opened.
    """
    return VideoSource(index, f"camera {index}", clock)


class VideoWriter:
    """Writes the frames of one video; the first frame decides its size."""

    def __init__(self, path: Path, name: str, fps: float) -> None:
        self.fps = fps
        self.n_frames = 0
        self._path, self._name = path, name
        self._writer: cv2.VideoWriter | None = None
        self._wh = (0, 0)

    def write(self, photo: Photo, until_seconds: float | None = None) -> None:
        """Adds a frame.

        Args:
            photo: (height, width, 3), RGB; scaled if it is not as large as the first one.
            until_seconds: Repeat the frame up to this time of the video; None adds it once.

        Raises:
            ImageError: OpenCV cannot write videos here.
        """
        if self._writer is None:
            self._wh = (photo.shape[1], photo.shape[0])
            self._writer = cv2.VideoWriter(str(self._path), cv2.VideoWriter.fourcc(*"mp4v"), self.fps, self._wh)
            if not self._writer.isOpened():
                raise ImageError(
                    f"{self._name}: OpenCV on this machine cannot write MPEG-4 videos (mp4v); install the package "
                    "opencv-python-headless"
                )
        if (photo.shape[1], photo.shape[0]) != self._wh:
            photo = np.asarray(cv2.resize(photo, self._wh, interpolation=cv2.INTER_AREA), np.uint8)
        pixels = cv2.cvtColor(photo, cv2.COLOR_RGB2BGR)
        wanted = 1 if until_seconds is None else round(until_seconds * self.fps) - self.n_frames
        for _ in range(wanted):
            self._writer.write(pixels)
            self.n_frames += 1

    def release(self) -> None:
        """Finishes the file."""
        if self._writer is not None:
            self._writer.release()

    def check(self) -> None:
        """Checks that the file can be read and has all frames: OpenCV does not report a full disk.

        Raises:
            ImageError: It has not.
        """
        capture = _open_capture(str(self._path))
        n_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if n_frames < self.n_frames:
            raise ImageError(
                f"{self._name}: only {n_frames} of {self.n_frames} frames could be written; check that the disk is not "
                "full"
            )


@contextmanager
def write_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """Writes a video, MPEG-4, which gets its name when the block ends without an error.

    Args:
        path: The file, ``.mp4``.
        fps: Frames per second.

    Yields:
        Its writer.

    Raises:
        ImageError: OpenCV cannot write it, or not all of it.
    """
    with atomic_path(path) as temporary:
        writer = VideoWriter(temporary, str(path), fps)
        try:
            yield writer
        finally:
            writer.release()
        writer.check()
