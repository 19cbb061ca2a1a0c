"""A web server on this machine, for tests of downloads."""

from __future__ import annotations

import http.server
import threading

HTML = b"<!DOCTYPE html><html><body>Please sign in to the proxy</body></html>"


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path's last word."""

    answers: dict[str, tuple[int, dict[str, str], bytes, int]]
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        status, headers, body, n_sent = self.answers[self.path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:n_sent])

    def log_message(self, *_: object) -> None:
        pass


class Server:
    """A server on this machine; ``say`` decides what it answers."""

    def __init__(self) -> None:
        self.handler = type("Handler", (_Handler,), {"answers": {}, "requests": []})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def say(
        self, file: str, body: bytes, status: int = 200, kind: str = "application/octet-stream", n_sent: int = -1
    ) -> None:
        headers = {"Content-Type": kind, "Content-Length": str(len(body))}
        self.handler.answers[f"/{file}"] = (status, headers, body, len(body) if n_sent < 0 else n_sent)

    def say_without_length(self, file: str, body: bytes) -> None:
        """Ends the connection where the file ends, as old servers do."""
        self.handler.answers[f"/{file}"] = (200, {"Content-Type": "application/octet-stream"}, body, len(body))

    def redirect(self, file: str, address: str) -> None:
        """Sends whoever asks for a file to another address."""
        headers = {"Location": address, "Content-Type": "text/html", "Content-Length": "0"}
        self.handler.answers[f"/{file}"] = (302, headers, b"", 0)

    @property
    def requests(self) -> list[str]:
        return self.handler.requests

    def address(self, file: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/{file}"

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
