"""Downloads that are kept only if the file is complete and has the expected sha256."""

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
_N_START_BYTES = 256


def download_file(address: str, path: Path, n_bytes: int, sha256: str, progress: Progress = SILENT) -> None:
    """Downloads one file and keeps it only if its size and sha256 are as expected.

    pooch downloads the file and ``atomic_path`` moves it to its path, because files of ``pooch.retrieve`` can be read
    by their owner only, which does not work in a cache that several people share.

    Args:
        address: URL that begins with ``http://``, ``https://`` or ``file://``.
        path: The path of the downloaded file.
        n_bytes: Expected size; at most one block more than this is read.
        sha256: Expected sha256.
        progress: Advances by the number of bytes of each block.

    Raises:
        WeightsError: The server cannot be reached or refuses, sends a web page instead of the file, the connection is
            interrupted, or the content is not the expected one.
    """
    with atomic_path(path) as temporary:
        transfer = _Transfer(temporary, n_bytes, progress)
        interruption = _fetch(address, transfer)
        found = file_sha256(temporary)
        if interruption or found != sha256:
            raise WeightsError(f"{address}: {_describe_failure(transfer, sha256, found, interruption)}")


def is_web_page(start: bytes) -> bool:
    """Whether the first bytes of a file show a web page, such as that of a proxy or a login, instead of data.

    Example:
        >>> is_web_page(b"  <!DOCTYPE html><html>"), is_web_page(b"7767517")
        (True, False)
    """
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head", b"<body"))


class _TooLongError(Exception):
    """More bytes were received than the file should have."""


class _Transfer:
    """One download in progress: serves as the progress bar of pooch, and keeps the server's response.

    pooch reports whole blocks, so the number of bytes is read from the size of the file.

    Attributes:
        total: Set by pooch to the size that the server announces.
        path: The file that is being written.
        n_bytes: Expected size of the file.
        response: The server's response after all redirections; None if there was none.
    """

    total = 0

    def __init__(self, path: Path, n_bytes: int, progress: Progress) -> None:
        self.path = path
        self.n_bytes = n_bytes
        self.response: Response | None = None
        self._progress = progress
        self._n_reported = 0

    @property
    def n_received(self) -> int:
        """Number of bytes received, including those of an incomplete block that was not written."""
        return max(self.path.stat().st_size, self.response.raw.tell() if self.response else 0)

    @property
    def is_page(self) -> bool:
        """Whether the received data is a web page, by its content type or its first bytes."""
        is_html = self.response is not None and "text/html" in self.response.headers.get("Content-Type", "").lower()
        with self.path.open("rb") as stream:
            return is_html or is_web_page(stream.read(_N_START_BYTES))

    def keep_response(self, response: Response, **_: Any) -> None:
        """Stores a response of the server that is not a redirection."""
        if not response.is_redirect:
            self.response = response

    def update(self, _: int) -> None:
        """Reports the bytes written since the last call."""
        n_written = self.path.stat().st_size
        self._progress.advance(n_written - self._n_reported)
        self._n_reported = n_written
        if n_written > self.n_bytes:
            raise _TooLongError

    def reset(self) -> None:
        """Does nothing: the bytes of a download are counted only once."""

    def close(self) -> None:
        """Does nothing: the caller that started the progress ends it."""


def _fetch(address: str, transfer: _Transfer) -> str:
    """Writes the content of the address; returns why the connection was interrupted, empty if it was not."""
    import pooch  # importing these two takes a third of a second, and every command imports this file
    import requests

    download = pooch.HTTPDownloader(
        progressbar=transfer,
        chunk_size=_BLOCK,
        timeout=_TIMEOUT_S,
        headers={"Accept-Encoding": "identity"},
        hooks={"response": transfer.keep_response},
    )
    try:
        if address.startswith("file:"):
            _copy_file(address, transfer)
        else:
            download(address, str(transfer.path), None)
    except requests.RequestException as error:
        if transfer.response is None:
            raise WeightsError(f"{address}: cannot be reached ({_reason(error)}); {_remedy(error)}") from error
        if not transfer.response.ok:
            raise WeightsError(
                f"{address}: the server answered {transfer.response.status_code} {transfer.response.reason}; see "
                "'emoface weights list' for the origin, or download by hand and use 'emoface weights add'"
            ) from error
        return _reason(error)
    except _TooLongError:
        pass
    finally:
        if transfer.response is not None:
            transfer.response.close()
    return ""


def _copy_file(address: str, transfer: _Transfer) -> None:
    try:
        shutil.copyfile(url2pathname(urlsplit(address).path), transfer.path)
    except OSError as error:
        raise WeightsError(f"{address}: cannot be read ({error.strerror})") from error
    transfer.update(transfer.n_bytes)


def _reason(error: BaseException) -> str:
    """The original reason of an error from requests, which wraps it several times."""
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


def _describe_failure(transfer: _Transfer, sha256: str, found: str, interruption: str) -> str:
    """Describes why a download is not kept: a web page, an interrupted connection, or other content."""
    n_received, n_bytes = transfer.n_received, transfer.n_bytes
    if transfer.is_page:
        return (
            "got a web page instead of the file; a proxy or login page may stand between. Open the address in a "
            "browser, or download elsewhere and use 'emoface weights add'"
        )
    if interruption or n_received < n_bytes:
        reason = f" ({interruption})" if interruption else ""
        return f"the connection was cut after {n_received:,} of {n_bytes:,} bytes{reason}; try again"
    if n_received > n_bytes:
        return f"sends more than the {n_bytes:,} bytes of the card; it is another file and is not kept"
    return (
        f"got {n_received:,} bytes with sha256 {found}, expected {sha256}; the file was changed on its way or at its "
        "origin and is not kept"
    )
