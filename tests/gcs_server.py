"""An emulator of Google Cloud Storage on this machine for tests, and a folder uploaded to it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from pathlib import Path

import pytest
from gcp_storage_emulator import server as emulator
from gcsfs import GCSFileSystem
from object_servers import forget_filesystem, upload_folder


class GcsServer:
    """A server on a free port of this machine, whose buckets are in its memory.

    Attributes:
        environment: Environment variables with which clients find it.
    """

    def __init__(self) -> None:
        logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
        self._server = emulator.create_server("127.0.0.1", 0, in_memory=True)
        self._server.start()
        http = self._server._api._httpd
        http.handle_error = lambda *_: None  # gcsfs asks for an object and a folder at once, and drops one answer
        self.environment = {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{http.server_port}",
            "NO_GCE_CHECK": "true",  # do not look for the credentials of a machine of Google
        }

    def stop(self) -> None:
        """Closes the port; the buckets are lost."""
        self._server.stop()


def refuse(patch: pytest.MonkeyPatch, status: HTTPStatus) -> None:
    """Lets every server of this process answer each request with a status."""

    def answer(router: emulator.Router, method: str) -> None:
        response = emulator.Response(router._request_handler)
        response.status = status
        response.json({"error": {"code": status.value, "message": "no access to the bucket"}})
        response.close()

    patch.setattr(emulator.Router, "handle", answer)


def upload(folder: Path, url: str) -> None:
    """Writes every file of a folder below a URL."""
    upload_folder(GCSFileSystem(), folder, url)


def forget_clients() -> None:
    """Lets the next command make its client anew, with the environment of that time."""
    forget_filesystem(GCSFileSystem)
