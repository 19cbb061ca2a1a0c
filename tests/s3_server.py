"""A local S3 server (moto's) for tests: its buckets, the requests that it answered, and a folder uploaded to it."""

from __future__ import annotations

import logging
import re
from collections import Counter
from pathlib import Path

from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from object_servers import forget_filesystem, upload_folder
from s3fs import S3FileSystem

_REQUEST = re.compile(r'"\S*?([A-Z]+) (\S+) HTTP')


class S3Server:
    """A server on a free port of this machine.

    Attributes:
        environment: Environment variables with which clients find it.
        port: Its port.
    """

    def __init__(self, port: int = 0) -> None:
        self._log = _RequestLog()
        logger = logging.getLogger("werkzeug")
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self._server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        self._server.start()
        host, self.port = self._server.get_host_and_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{self.port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        """Closes the port; what the buckets hold stays for the next server of this process."""
        self._server.stop()
        logging.getLogger("werkzeug").removeHandler(self._log)

    def take_requests(self) -> Counter[str]:
        """Counts the requests since the last call: ``HEAD``, ``GET`` and ``PUT`` of objects, ``LIST`` of folders."""
        requests, self._log.requests = self._log.requests, Counter()
        return requests


class _RequestLog(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.requests: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        found = _REQUEST.search(re.sub(r"\x1b\[\d+m", "", record.getMessage()))
        if found is not None:
            self.requests["LIST" if "list-type=2" in found[2] else found[1]] += 1


def upload(folder: Path, url: str) -> None:
    """Writes every file of a folder below a URL."""
    upload_folder(S3FileSystem(), folder, url)


def forget_clients() -> None:
    """Lets the next command make its client anew, with the environment of that time."""
    forget_filesystem(S3FileSystem)
    forget_filesystem(MemoryFileSystem)
