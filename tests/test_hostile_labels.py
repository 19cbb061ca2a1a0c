"""Label texts that nobody wrote: whatever they hold, they are read or refused with words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emoface.datasets.face_labels import read_face_labels
from emoface.errors import AnnotationsError

WORDS = ["0", "1", "-1", "3", "1e400", "nan", "inf", "9" * 30, "#", "a.jpg", "../b", "x", "\x0c", "\u0661", "\0"]
LINE = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=21).map(" ".join),
    st.just("10 20 30 40 0 0 0 0 0 0"),
    st.text(max_size=12),
)


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=st.sampled_from(["# a.jpg", "a.jpg", ""]), lines=st.lists(LINE, max_size=8), tail=st.binary(max_size=4))
@pytest.mark.filterwarnings("error")
def test_label_texts_are_read_or_refused(tmp_path: Path, first: str, lines: list[str], tail: bytes) -> None:
    path = tmp_path / "label.txt"
    path.write_bytes("\n".join([first, *lines]).encode("utf-8", "surrogatepass") + tail)
    try:
        photos = read_face_labels(path)
    except AnnotationsError as error:
        assert str(error).startswith(str(path))
    else:
        assert all(photo.path.is_relative_to(tmp_path / "images") for photo in photos)
