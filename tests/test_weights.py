"""Weights by name: cards, where files are looked for, downloads that go wrong, and the commands."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from file_server import HTML, Server

from emoface.cli import main
from emoface.errors import WeightsError
from emoface.storage import weights
from emoface.storage.files import file_sha256
from emoface.storage.weights import (
    CardFile,
    WeightsCard,
    add_weights,
    cache_dir,
    fetch_weights,
    find_weights,
    list_weights,
    read_cards,
    verify_weights,
)
from emoface.yolov5face import ARCHITECTURES, YoloV5Face, load_network, save_network

PARAM, NUMBERS = b"7767517\n0 0\n", bytes(range(256)) * 400


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no folders in EMOFACE_WEIGHTS, and nothing in the package."""
    monkeypatch.setenv("EMOFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EMOFACE_WEIGHTS", raising=False)
    monkeypatch.setattr(weights, "_PACKAGE_DIR", tmp_path / "package")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


def _card_file(server: Server, file: str, body: bytes) -> CardFile:
    return CardFile(file, server.address(file), len(body), hashlib.sha256(body).hexdigest())


@pytest.fixture
def cards(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, WeightsCard]:
    """A detector as an ncnn pair, a backbone under a file name of its own, and one that has no address."""
    pair = (_card_file(server, "tiny.param", PARAM), _card_file(server, "tiny.bin", NUMBERS))
    backbone = (_card_file(server, "resnet-4f2a.pth", NUMBERS),)
    words = {"licence": "MIT", "origin": "somebody, somewhere"}
    known = {
        "tiny": WeightsCard("tiny", "yolov5n-face", "detector", format="ncnn", files=pair, **words),
        "resnet": WeightsCard("resnet", "resnet50", "backbone", format="torch state dict", files=backbone, **words),
        "by-hand": WeightsCard("by-hand", "yolov5s-face", "detector", format="pt", files=(), **words),
    }
    monkeypatch.setattr(weights, "read_cards", lambda: known)
    server.say("tiny.param", PARAM, kind="text/plain")
    server.say("tiny.bin", NUMBERS)
    server.say("resnet-4f2a.pth", NUMBERS)
    return known


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["weights", *map(str, arguments)])


# cards


def test_committed_cards_are_whole() -> None:
    cards = read_cards()
    assert {"yolov5n-face", "yolov5n-0.5-face", "yolov5-blazeface"} <= set(cards)
    for card in cards.values():
        assert card.task in ("detector", "backbone", "pose", "regions")
        assert card.licence and card.format and card.origin
        if card.task == "detector":
            assert card.network in ARCHITECTURES
        for one in card.files:
            assert Path(one.file).name == one.file and Path(one.file).suffix in weights.SUFFIXES
            assert re.fullmatch(r"[0-9a-f]{64}", one.sha256) and one.n_bytes > 0
            if not one.address:
                assert file_sha256(Path(weights.__file__).parents[1] / "weights_data" / one.file) == one.sha256
                continue
            assert re.match(r"https?://", one.address)
            if "github" in one.address:
                assert re.search(r"/[0-9a-f]{40}/", one.address), "not pinned to a commit"


def test_cards_describe_the_published_files(weights_dir: Path) -> None:
    for name in ("yolov5n-face", "yolov5n-0.5-face", "yolov5-blazeface"):
        for one in read_cards()[name].files:
            data = (weights_dir / one.file).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (one.n_bytes, one.sha256)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep caches elsewhere")
def test_cache_lies_where_linux_keeps_caches_and_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_dir() == tmp_path / "cache" / "weights"
    monkeypatch.delenv("EMOFACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "emoface" / "weights"
    monkeypatch.setenv("HOME", str(tmp_path))
    for empty in (True, False):
        monkeypatch.setenv("XDG_CACHE_HOME", "") if empty else monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache_dir() == tmp_path / ".cache" / "emoface" / "weights"
    assert list(tmp_path.iterdir()) == []


# fetch


def test_right_files_are_fetched_once(server: Server, cards: dict[str, WeightsCard], cache: Path) -> None:
    answer = _run("fetch", "tiny", "resnet")
    assert answer.exit_code == 0, answer.output
    assert _files(cache) == {"tiny.param", "tiny.bin", "resnet-4f2a.pth"}
    assert (cache / "tiny.bin").read_bytes() == NUMBERS
    assert f"file: {cache / 'tiny.bin'}" in answer.output
    assert cards["tiny"].files[1].sha256 in answer.output
    assert find_weights("tiny").found_in == "cache" and find_weights("tiny").network == "yolov5n-face"
    assert find_weights("resnet").path == cache / "resnet-4f2a.pth"
    n_requests = len(server.requests)
    assert fetch_weights("tiny").path == cache / "tiny.bin"
    assert len(server.requests) == n_requests


def test_right_files_in_another_folder_are_not_fetched(
    server: Server, cards: dict[str, WeightsCard], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_weights("tiny")
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("tiny.param", "tiny.bin"):
        (cache / name).rename(mine / name)
    monkeypatch.setenv("EMOFACE_WEIGHTS", str(mine))
    n_requests = len(server.requests)
    answer = _run("fetch", "tiny")
    assert answer.exit_code == 0 and len(server.requests) == n_requests
    assert f"{mine / 'tiny.bin'}: is there already" in answer.output and f"file: {mine / 'tiny.bin'}" in answer.output
    (mine / "tiny.bin").write_bytes(b"damaged")
    assert fetch_weights("tiny").path == cache / "tiny.bin" and len(server.requests) > n_requests


Spoil = Callable[[Server], None]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda server: server.say("tiny.bin", NUMBERS[:-1] + b"x"),
            r"tiny\.bin: got 102,400 bytes with sha256 [0-9a-f]{64}, expected [0-9a-f]{64}; the file was changed",
        ),
        (
            lambda server: server.say("tiny.bin", NUMBERS, n_sent=70_000),
            r"tiny\.bin: the connection was cut after 70,000 of 102,400 bytes",
        ),
        (
            lambda server: server.say("tiny.bin", NUMBERS[:99_000]),
            r"tiny\.bin: the connection was cut after 99,000 of 102,400 bytes",
        ),
        (lambda server: server.say("tiny.bin", NUMBERS * 9), r"tiny\.bin: sends more than the 102,400 bytes"),
        (lambda server: server.say("tiny.bin", HTML), "got a web page instead of the file; a proxy or login page"),
        (lambda server: server.say("tiny.bin", b"busy", kind="text/html"), "got a web page instead of the file"),
        (lambda server: server.say("tiny.bin", HTML, 404), r"tiny\.bin: the server answered 404 Not Found"),
        (lambda server: server.say("tiny.bin", HTML, 503), r"tiny\.bin: the server answered 503"),
        (lambda server: server.stop(), r"tiny\.(bin|param): cannot be reached \(.*refused.*\); check the network"),
    ],
    ids=["wrong byte", "cut", "short", "too long", "page", "page by type", "404", "503", "down"],
)
def test_each_failed_download_has_its_own_error_and_leaves_nothing(
    server: Server, cards: dict[str, WeightsCard], cache: Path, spoil: Spoil, message: str
) -> None:
    spoil(server)
    answer = _run("fetch", "tiny")
    assert answer.exit_code == 1
    errors = [line for line in answer.output.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and re.search(message, errors[0]), answer.output
    assert "Traceback" not in answer.output
    # the good .param stays, so that a second try asks for the .bin alone; of the .bin nothing is left
    assert _files(cache) == (set() if "reached" in message else {"tiny.param"})


def test_a_second_try_asks_only_for_what_is_missing(server: Server, cards: dict[str, WeightsCard], cache: Path) -> None:
    server.say("tiny.bin", NUMBERS, n_sent=10)
    with pytest.raises(WeightsError, match="cut after 10 of"):
        fetch_weights("tiny")
    server.say("tiny.bin", NUMBERS)
    fetch_weights("tiny")
    assert server.requests == ["/tiny.param", "/tiny.bin", "/tiny.bin"]


def test_a_failed_download_keeps_the_file_that_was_there(
    server: Server, cards: dict[str, WeightsCard], cache: Path
) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.bin").write_bytes(b"an older release")
    server.say("tiny.bin", HTML)
    with pytest.raises(WeightsError, match="web page"):
        fetch_weights("tiny")
    assert (cache / "tiny.bin").read_bytes() == b"an older release"
    server.say("tiny.bin", NUMBERS)
    assert fetch_weights("tiny").sha256 == cards["tiny"].files[1].sha256


def test_what_has_no_address_or_no_card_cannot_be_fetched(cards: dict[str, WeightsCard]) -> None:
    with pytest.raises(WeightsError, match="'by-hand' cannot be fetched: somebody, somewhere"):
        fetch_weights("by-hand")
    with pytest.raises(WeightsError, match="no weights are called 'tinny'; did you mean 'tiny'"):
        fetch_weights("tinny")


# the order of looking up


def test_a_name_is_looked_for_in_order(
    cards: dict[str, WeightsCard], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, first, second, package = (tmp_path / word for word in ("own", "first", "second", "package"))
    monkeypatch.setenv("EMOFACE_WEIGHTS", f"{first}:{second}")
    for folder in (own, first, second, cache, package):
        folder.mkdir(parents=True)
        (folder / "mine.safetensors").write_bytes(folder.name.encode())
    option = find_weights("mine", own / "mine.safetensors")
    assert (option.path, option.found_in, option.name) == (own / "mine.safetensors", "option", "mine")
    for folder, found_in in (
        (first, "EMOFACE_WEIGHTS"),
        (second, "EMOFACE_WEIGHTS"),
        (cache, "cache"),
        (package, "package"),
    ):
        found = find_weights("mine")
        assert (found.path, found.found_in) == (folder / "mine.safetensors", found_in)
        assert found.sha256 == hashlib.sha256(folder.name.encode()).hexdigest()
        found.path.unlink()
    with pytest.raises(WeightsError, match=f"no weights 'mine' in {first}, {second}, {cache}, {package}; no card"):
        find_weights("mine")


def test_an_error_names_the_command_that_helps(cards: dict[str, WeightsCard], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="run 'emoface weights fetch tiny'"):
        find_weights("tiny")
    with pytest.raises(WeightsError, match="somebody, somewhere"):
        find_weights("by-hand")
    with pytest.raises(WeightsError, match=r"did you mean 'tiny'.*emoface weights add FILE --name tinny"):
        find_weights("tinny")
    with pytest.raises(WeightsError, match=r"none\.pt: no such weight file"):
        find_weights("tiny", tmp_path / "none.pt")


def test_a_file_that_is_not_its_cards_is_refused(cards: dict[str, WeightsCard], cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "tiny.param").write_bytes(PARAM)
    (cache / "tiny.bin").write_bytes(NUMBERS[:-1])
    with pytest.raises(WeightsError, match=r"tiny\.bin: sha256 is .* expected .* of the card 'tiny'; remove"):
        find_weights("tiny")
    assert find_weights("tiny", cache / "tiny.bin").found_in == "option"
    (cache / "tiny.param").unlink()
    with pytest.raises(WeightsError, match=r"tiny\.param: no such file; ncnn weights are a \.param and a \.bin"):
        find_weights("tiny")


# list, verify, add


def test_list_says_where_each_set_lies(cards: dict[str, WeightsCard], cache: Path) -> None:
    fetch_weights("resnet")
    (cache / "own.safetensors").write_bytes(b"1")
    (cache / "tiny.param").write_bytes(PARAM)
    rows = {row["name"]: row for row in list_weights()}
    assert list(rows) == ["tiny", "resnet", "by-hand", "own"]
    assert rows["resnet"] == {
        "name": "resnet",
        "task": "backbone",
        "licence": "MIT",
        "format": "pth",
        "state": "cache",
        "where": str(cache / "resnet-4f2a.pth"),
    }
    assert rows["by-hand"]["state"] == "absent" and rows["by-hand"]["where"] == "somebody, somewhere"
    assert rows["tiny"]["state"] == "cache, half a pair"
    assert rows["own"]["state"] == "cache"
    answer = _run("list")
    assert answer.exit_code == 0
    lines = answer.output.splitlines()
    assert lines[0].split("\t") == ["name", "task", "licence", "format", "state", "where"]
    assert [line.split("\t")[0] for line in lines[1:]] == list(rows)


def test_verify_finds_the_wrong_byte(cards: dict[str, WeightsCard], cache: Path) -> None:
    fetch_weights("tiny")
    fetch_weights("resnet")
    (cache / "own.pt").write_bytes(b"1")
    assert {Path(row["path"]).name: row["result"] for row in verify_weights()} == {
        "tiny.param": "right",
        "tiny.bin": "right",
        "resnet-4f2a.pth": "right",
        "own.pt": "no card",
    }
    assert _run("verify").exit_code == 0
    (cache / "resnet-4f2a.pth").write_bytes(NUMBERS[:-1] + b"x")
    (cache / "tiny.param").unlink()
    answer = _run("verify")
    assert answer.exit_code == 1
    assert "resnet-4f2a.pth" in answer.output.splitlines()[-1] and "half a pair" in answer.output
    assert _run("verify", "tiny").exit_code == 1
    assert _run("verify", "own").exit_code == 0
    missing = _run("verify", "by-hand")
    assert missing.exit_code == 1 and "Error: no weights 'by-hand' on this machine" in missing.output


def test_verify_of_nothing_is_right() -> None:
    assert verify_weights() == []
    assert _run("verify").exit_code == 0


def test_add_copies_a_readable_file_under_its_name(
    cache: Path, tmp_path: Path, random_network: Callable[..., YoloV5Face]
) -> None:
    save_network(random_network("yolov5-blazeface"), tmp_path / "best.pt")
    answer = _run("add", tmp_path / "best.pt", "--name", "mine")
    assert answer.exit_code == 0, answer.output
    assert "network: yolov5-blazeface" in answer.output and "parameters: 181,736" in answer.output
    assert (cache / "mine.pt").read_bytes() == (tmp_path / "best.pt").read_bytes()
    assert load_network(find_weights("mine").path).name == "yolov5-blazeface"
    assert _run("add", cache / "mine.pt").exit_code == 0  # onto itself


def test_add_takes_both_files_of_a_pair(weights_dir: Path, cache: Path) -> None:
    assert _run("add", weights_dir / "yolov5n-0.5-face.param").exit_code == 0
    assert _files(cache) == {"yolov5n-0.5-face.param", "yolov5n-0.5-face.bin"}
    wrong = _run("add", weights_dir / "yolov5n-0.5-face.bin", "--name", "yolov5n-face")
    assert wrong.exit_code == 1 and "of the card 'yolov5n-face'" in wrong.output
    assert _files(cache) == {"yolov5n-0.5-face.param", "yolov5n-0.5-face.bin"}


def test_add_takes_models_of_other_tasks_without_loading_them(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "rtmw.onnx").write_bytes(b"no detector")
    refused = _run("add", tmp_path / "rtmw.onnx")
    assert refused.exit_code == 1 and "not a readable ONNX model" in refused.output and not _files(cache)
    assert _run("add", tmp_path / "rtmw.onnx", "--task", "pose").exit_code == 0
    assert find_weights("rtmw").path == cache / "rtmw.onnx"
    (tmp_path / "movenet.tflite").write_bytes(b"1")
    assert _run("add", tmp_path / "movenet.tflite", "--name", "movenet-lightning").exit_code == 0  # by its card
    assert find_weights("movenet-lightning").path.suffix == ".tflite"


@pytest.mark.parametrize(
    ("file", "data", "name", "message"),
    [
        ("page.pt", HTML, "page", "a web page, not weights"),
        ("broken.pt", b"1234", "broken", "not a readable torch file"),
        ("weights.caffemodel", b"1", "mine", "type '.caffemodel' is not a weight file"),
        ("weights.pt", b"1", "../mine", "cannot name weights"),
        ("weights.pt", b"1", ".mine", "cannot name weights"),
        ("half.bin", b"1", "mine", "ncnn weights are a .param and a .bin"),
    ],
)
def test_add_refuses_what_cannot_be_weights(
    cache: Path, tmp_path: Path, file: str, data: bytes, name: str, message: str
) -> None:
    (tmp_path / file).write_bytes(data)
    answer = _run("add", tmp_path / file, "--name", name)
    assert answer.exit_code == 1 and message in answer.output
    assert _files(cache) == set()


def test_add_refuses_another_network_than_the_cards(
    cache: Path, tmp_path: Path, random_network: Callable[..., YoloV5Face]
) -> None:
    save_network(random_network("yolov5-blazeface"), tmp_path / "yolov5s-face.pt")
    answer = _run("add", tmp_path / "yolov5s-face.pt")
    assert answer.exit_code == 1 and "of yolov5s-face" in answer.output
    assert _files(cache) == set()


def test_a_backbone_is_held_against_its_sha256(
    cards: dict[str, WeightsCard], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emoface.jobs.add_weights.read_cards", lambda: cards)
    (tmp_path / "download.pth").write_bytes(NUMBERS)
    assert _run("add", tmp_path / "download.pth", "--name", "resnet").exit_code == 0
    assert find_weights("resnet").path == cache / "resnet.pth"
    (tmp_path / "download.pth").write_bytes(NUMBERS[1:])
    assert _run("add", tmp_path / "download.pth", "--name", "resnet").exit_code == 1


def test_add_from_python_checks_the_card_too(cards: dict[str, WeightsCard], cache: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"1")
    with pytest.raises(WeightsError, match="of the card 'resnet'"):
        add_weights(tmp_path / "a.pth", "resnet")
    assert _files(cache) == set()
