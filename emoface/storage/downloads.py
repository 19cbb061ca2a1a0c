"""Files fetched from the web: whole and with the sha256 that was promised, or not at all."""

from __future__ import annotations

import http.client
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from emoface.errors import WeightsError
from emoface.progress import SILENT, Progress
from emoface.storage.files import atomic_path, file_sha256

if TYPE_CHECKING:
    from requests import Response

_TIMEOUT_S = 30
_BLOCK = 1 << 16
_START = 256


def download_file(address: str, path: Path, n_bytes: int, sha256: str, progress: Progress = SILENT) -> None:
    """Downloads one file and puts it in place only if it is the right one.

    pooch downloads, and ``atomic_path`` puts in place: the files of ``pooch.retrieve`` can be read by their owner
    alone, which is of no use in a cache that several people share.

    Args:
        address: ``http://``, ``https://`` or ``file://``.
        path: Where it goes.
        n_bytes: The size it must have; no more than one block beyond it is read.
        sha256: That it must have.
        progress: Told of each byte.

    Raises:
        WeightsError: The server cannot be reached or says no, sends a page instead of a file, the connection is cut,
            or the bytes are others.
    """
    with atomic_path(path) as temporary:
        transfer = _Transfer(temporary, n_bytes, progress)
        cut = _fetch(address, transfer)
        found = file_sha256(temporary)
        if cut or found != sha256:
            raise WeightsError(f"{address}: {_say_what_is_wrong(transfer, sha256, found, cut)}")


def is_web_page(start: bytes) -> bool:
    """Whether a file that starts so is a page of a proxy or login, and not data.

    Example:
        >>> is_web_page(b"  <!DOCTYPE html><html>"), is_web_page(b"7767517")
        (True, False)
    """
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head", b"<body"))


class _TooLongError(Exception):
    """More bytes have come than the file may have."""


class _Transfer:
    """One file on its way: the progress bar of pooch, and what the server answered.

    pooch reports whole blocks, so the file is asked how long it is.

    Attributes:
        total: Set by pooch to what the server announces.
        path: The file that is being written.
        n_bytes: The size it must have.
        answer: The server's, after all redirections; None where there was none.
    """

    total = 0

    def __init__(self, path: Path, n_bytes: int, progress: Progress) -> None:
        self.path = path
        self.n_bytes = n_bytes
        self.answer: Response | None = None
        self._progress = progress
        self._n_reported = 0

    @property
    def n_received(self) -> int:
        """Bytes that have come, also those of a block that was cut and not written."""
        return max(self.path.stat().st_size, self.answer.raw.tell() if self.answer else 0)

    @property
    def is_page(self) -> bool:
        """Whether what came is a web page, by its type or its first words."""
        is_html = self.answer is not None and "text/html" in self.answer.headers.get("Content-Type", "").lower()
        with self.path.open("rb") as stream:
            return is_html or is_web_page(stream.read(_START))

    def keep(self, answer: Response, **_: Any) -> None:
        """Takes note of an answer of the server."""
        if not answer.is_redirect:
            self.answer = answer

    def update(self, _: int) -> None:
        """Reports what has been written since the last call."""
        n_written = self.path.stat().st_size
        self._progress.advance(n_written - self._n_reported)
        self._n_reported = n_written
        if n_written > self.n_bytes:
            raise _TooLongError

    def reset(self) -> None:
        """Does nothing: the bytes are counted once."""

    def close(self) -> None:
        """Does nothing: whoever started the progress ends it."""


def _fetch(address: str, transfer: _Transfer) -> str:
    """Writes what the address sends; returns why the connection was cut, empty where it was not."""
    import pooch  # these two take a third of a second, and every command imports this file
    import requests

    download = pooch.HTTPDownloader(
        progressbar=transfer,
        chunk_size=_BLOCK,
        timeout=_TIMEOUT_S,
        headers={"Accept-Encoding": "identity"},
        hooks={"response": transfer.keep},
    )
    try:
        if address.startswith("file:"):
            _copy_file(address, transfer)
        else:
            download(address, str(transfer.path), None)
    except requests.RequestException as error:
        if transfer.answer is None:
            raise WeightsError(f"{address}: cannot be reached ({_reason(error)}); {_remedy(error)}") from error
        if not transfer.answer.ok:
            raise WeightsError(
                f"{address}: the server answered {transfer.answer.status_code} {transfer.answer.reason}; see 'emoface "
                "weights list' for the origin, or download by hand and use 'emoface weights add'"
            ) from error
        return _reason(error)
    except _TooLongError:
        pass
    finally:
        if transfer.answer is not None:
            transfer.answer.close()
    return ""


def _copy_file(address: str, transfer: _Transfer) -> None:
    try:
        shutil.copyfile(url2pathname(urlsplit(address).path), transfer.path)
    except OSError as error:
        raise WeightsError(f"{address}: cannot be read ({error.strerror})") from error
    transfer.update(transfer.n_bytes)


def _reason(error: BaseException) -> str:
    """What lies behind an error of requests, which wraps it several times over."""
    import requests

    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, http.client.IncompleteRead):
            return "the server closed it"
        if isinstance(inner, OSError | http.client.HTTPException) and not isinstance(inner, requests.RequestException):
            return str(inner) or type(inner).__name__
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__


def _remedy(error: BaseException) -> str:
    import requests

    if isinstance(error, requests.exceptions.ProxyError):
        return "check the proxy that HTTPS_PROXY and HTTP_PROXY name, and try again"
    if isinstance(error, requests.exceptions.SSLError):
        return "where a proxy has certificates of its own, name their file in REQUESTS_CA_BUNDLE, and try again"
    return "check the network and try again"


def _say_what_is_wrong(transfer: _Transfer, sha256: str, found: str, cut: str) -> str:
    """Says which way a download went wrong: a page, a cut, or other bytes."""
    n_received, n_bytes = transfer.n_received, transfer.n_bytes
    if transfer.is_page:
        return (
            "got a web page instead of the file; a proxy or login page may stand between. Open the address in a "
            "browser, or download elsewhere and use 'emoface weights add'"
        )
    if cut or n_received < n_bytes:
        reason = f" ({cut})" if cut else ""
        return f"the connection was cut after {n_received:,} of {n_bytes:,} bytes{reason}; try again"
    if n_received > n_bytes:
        return f"sends more than the {n_bytes:,} bytes of the card; it is another file and is not kept"
    return (
        f"got {n_received:,} bytes with sha256 {found}, expected {sha256}; the file was changed on its way or at its "
        "origin and is not kept"
    )
