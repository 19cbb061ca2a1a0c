"""A server on this machine that speaks the calls with which huggingface_hub uploads a folder, for the tests of push."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from typing import Any


class HubServer:
    """Keeps what is uploaded.

    Attributes:
        repositories: Visibility of each repository, by ``KIND/OWNER/NAME``: whether it is private.
        files: Content of each file that was committed, by its path in the repository.
        tokens: The tokens that requests came with.
        refusal: Status with which every request is answered; 0 if none is refused.
        large: Ends of the names of files that are uploaded by LFS.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.refusal = 0
        self.large: tuple[str, ...] = ()
        self._blobs: dict[str, bytes] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> Any:
        """Answers a request by the end of its path."""
        if path.startswith("/blob/"):
            self._blobs[path.removeprefix("/blob/")] = body
            return {}
        if path.endswith("/commit/main"):
            return self._commit(path.split("/")[2:-2], body)
        content = json.loads(body or b"{}")
        if path == "/api/repos/create":
            name = f"{content.get('organization') or 'me'}/{content['name']}"
            kind = content.get("type", "model")
            self.repositories.setdefault(
                f"{kind}/{name}", content.get("visibility") == "private" or content.get("private") is True
            )
            return {"url": f"{self.address}/{'datasets/' if kind == 'dataset' else ''}{name}", "id": name}
        if path.endswith("/preupload/main"):
            modes = {one["path"]: "lfs" if one["path"].endswith(self.large) else "regular" for one in content["files"]}
            return {"files": [{"path": one, "uploadMode": modes[one], "shouldIgnore": False} for one in modes]}
        if path.endswith("/info/lfs/objects/batch"):
            return {
                "transfer": "basic",
                "objects": [
                    {**one, "actions": {"upload": {"href": f"{self.address}/blob/{one['oid']}"}}}
                    for one in content["objects"]
                ],
            }
        return {}  # such as the check of the card's metadata

    def _commit(self, repository: list[str], body: bytes) -> Any:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[value["path"]] = self._blobs[value["oid"]]
        return {
            "commitUrl": f"{self.address}/{'/'.join(repository).removeprefix('models/')}/commit/{'1' * 40}",
            "commitOid": "1" * 40,
            "success": True,
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._read_chunks()
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        status = self.hub.refusal or 200
        content = self.hub.answer(self.path.partition("?")[0], body) if status == 200 else {"error": "not for you"}
        answer = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _read_chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass
