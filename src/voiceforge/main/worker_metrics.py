"""A port that tells Prometheus what a worker counted: `/metrics`, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from voiceforge.errors import Conflict
from voiceforge.telemetry.metrics import Metrics


@contextlib.contextmanager
def metrics_port(metrics: Metrics, host: str, port: int) -> Iterator[str]:
    """Its address, while the block runs.

    Raises:
        Conflict: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, content_type = metrics.exposition() if self.path == "/metrics" else (b"", "text/plain")
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise Conflict(f"{host}:{port} cannot be used for metrics: {error.strerror or error}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
