"""Downloads: what is reported, what is kept, and what is said where a server, proxy or certificate is in the way."""

from __future__ import annotations

import hashlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import HTML, Server

from emoface.errors import WeightsError
from emoface.progress import SILENT, Progress, Silent
from emoface.storage.downloads import download_file, is_web_page

BODY = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    running.say("file.bin", BODY)
    yield running
    running.stop()


def _closed_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _download(address: str, path: Path, body: bytes = BODY, progress: Progress = SILENT) -> None:
    download_file(address, path, len(body), hashlib.sha256(body).hexdigest(), progress)


class Steps(Silent):
    """Remembers each advance."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def advance(self, n: int = 1) -> None:
        self.steps.append(n)


def test_each_byte_is_reported_once(server: Server, tmp_path: Path) -> None:
    told = Steps()
    _download(server.address("file.bin"), tmp_path / "new" / "a.bin", progress=told)
    assert (tmp_path / "new" / "a.bin").read_bytes() == BODY
    assert sum(told.steps) == len(BODY) == 256_000
    assert [step for step in told.steps if step] == [65_536, 65_536, 65_536, 59_392]


def test_an_empty_file_and_one_of_no_stated_length_are_files(server: Server, tmp_path: Path) -> None:
    server.say("empty.bin", b"")
    _download(server.address("empty.bin"), tmp_path / "empty.bin", b"")
    assert (tmp_path / "empty.bin").read_bytes() == b""
    server.say_without_length("old.bin", BODY)
    told = Steps()
    _download(server.address("old.bin"), tmp_path / "old.bin", progress=told)
    assert (tmp_path / "old.bin").read_bytes() == BODY and sum(told.steps) == len(BODY)
    server.say_without_length("old.bin", BODY[:-1])
    with pytest.raises(WeightsError, match="was cut after 255,999 of 256,000 bytes; try again"):
        _download(server.address("old.bin"), tmp_path / "new.bin")


def test_a_file_can_be_read_by_whom_the_umask_lets(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    _download(server.address("file.bin"), tmp_path / "a.bin")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.bin", "other")]
    assert modes[0] == modes[1]


def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    class Interrupted(Silent):
        def advance(self, n: int = 1) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _download(server.address("file.bin"), tmp_path / "a.bin", progress=Interrupted())
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_long_is_not_read_to_its_end(server: Server, tmp_path: Path) -> None:
    told = Steps()
    with pytest.raises(WeightsError, match="sends more than the 1,000 bytes of the card"):
        _download(server.address("file.bin"), tmp_path / "a.bin", BODY[:1000], told)
    assert told.steps == [65_536]


def test_redirections_are_followed_and_where_they_end_counts(server: Server, tmp_path: Path) -> None:
    server.redirect("moved.bin", server.address("file.bin"))
    _download(server.address("moved.bin"), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == BODY
    server.redirect("moved.bin", f"http://127.0.0.1:{_closed_port()}/")
    with pytest.raises(WeightsError, match=r"moved\.bin: cannot be reached \(.*refused\); check the network"):
        _download(server.address("moved.bin"), tmp_path / "b.bin")
    server.redirect("moved.bin", server.address("moved.bin"))
    with pytest.raises(WeightsError, match=r"cannot be reached \(Exceeded 30 redirects\.\)"):
        _download(server.address("moved.bin"), tmp_path / "b.bin")


def test_a_confirmation_page_in_place_of_the_file_is_told(server: Server, tmp_path: Path) -> None:
    # Of a large file Google Drive sends a page that asks whether to go on, with status 200.
    page = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"
    for body in (page, HTML):
        server.say("page.bin", body)
        with pytest.raises(WeightsError, match=r"page\.bin: got a web page instead of the file"):
            _download(server.address("page.bin"), tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []
    assert is_web_page(page) and not is_web_page(b"") and not is_web_page(BODY)


def test_a_page_whose_sha256_is_right_is_what_was_asked_for(server: Server, tmp_path: Path) -> None:
    server.say("page.bin", HTML, kind="text/html; charset=utf-8")
    _download(server.address("page.bin"), tmp_path / "a.bin", HTML)
    assert (tmp_path / "a.bin").read_bytes() == HTML


def test_a_proxy_that_is_down_is_named(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{_closed_port()}")
    with pytest.raises(WeightsError, match=r"cannot be reached \(.*refused\); check the proxy") as caught:
        _download(server.address("file.bin"), tmp_path / "a.bin")
    assert "\n" not in str(caught.value) and server.requests == []


def test_a_failed_tls_connection_is_told_in_one_line(server: Server, tmp_path: Path) -> None:
    address = server.address("file.bin").replace("http:", "https:")  # the server speaks no TLS
    with pytest.raises(
        WeightsError, match=r"cannot be reached \(\[SSL.*\); where a proxy .* REQUESTS_CA_BUNDLE"
    ) as caught:
        _download(address, tmp_path / "a.bin")
    assert "\n" not in str(caught.value) and "HTTPSConnectionPool" not in str(caught.value)


@pytest.mark.parametrize("address", ["weights.example/a.bin", "http://", "gopher://weights.example/a.bin"])
def test_what_is_no_address_cannot_be_reached(tmp_path: Path, address: str) -> None:
    with pytest.raises(WeightsError, match=f"^{address}: cannot be reached"):
        _download(address, tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_this_machine_is_copied(tmp_path: Path) -> None:
    source, told = tmp_path / "a file.bin", Steps()
    source.write_bytes(BODY)
    _download(source.as_uri(), tmp_path / "a.bin", progress=told)
    assert (tmp_path / "a.bin").read_bytes() == source.read_bytes() and told.steps == [len(BODY)]
    with pytest.raises(WeightsError, match="sends more than the 5 bytes"):
        _download(source.as_uri(), tmp_path / "b.bin", b"short")
    with pytest.raises(WeightsError, match=r"none\.bin: cannot be read \(No such file or directory\)"):
        _download((tmp_path / "none.bin").as_uri(), tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()
