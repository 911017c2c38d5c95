"""A folder served by the protocol of S3, as far as readers need it: list, head, get byte ranges."""

from __future__ import annotations

import contextlib
import http.server
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

_TIME = "Mon, 01 Jan 2024 00:00:00 GMT"
_ENTRY = (
    "<Contents><Key>{}</Key><Size>{}</Size><ETag>e</ETag>"
    "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
)


@contextlib.contextmanager
def serve_bucket(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """Serves a folder as a bucket.

    Yields:
        The query that a URL `s3://NAME/…` needs, and the byte ranges that were asked for.
    """
    ranges: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            path, _ = self._asked()
            if path.is_file():
                self._answer(200, length=path.stat().st_size)
            else:
                self._answer(200 if path == folder else 404)

        def do_GET(self) -> None:
            path, query = self._asked()
            if path.is_file():
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                data = path.read_bytes()
                part = data[int(first) : int(last) + 1]
                ranges.append(f"{path.name} {first}-{last}")
                where = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                self._answer(206, part, where=where)
            elif "list-type" in query:
                self._answer(200, self._listing(query).encode())
            else:
                self._answer(404)

        def _asked(self) -> tuple[Path, dict[str, str]]:
            url = urllib.parse.urlsplit(self.path)
            bucket, _, key = urllib.parse.unquote(url.path).lstrip("/").partition("/")
            path = folder / key if bucket == name else folder / "no such bucket"
            return path, dict(urllib.parse.parse_qsl(url.query))

        def _listing(self, query: dict[str, str]) -> str:
            prefix = query.get("prefix", "")
            paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            keys = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
            entries = [
                _ENTRY.format(key, size) for key, size in keys.items() if key.startswith(prefix)
            ]
            return (
                f"<ListBucketResult><KeyCount>{len(entries)}</KeyCount>{''.join(entries)}"
                "<IsTruncated>false</IsTruncated></ListBucketResult>"
            )

        def _answer(
            self,
            code: int,
            body: bytes = b"",
            *,
            length: int | None = None,
            where: str | None = None,
        ) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.send_header("ETag", "e")
            self.send_header("Last-Modified", _TIME)
            if where is not None:
                self.send_header("Content-Range", where)
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        endpoint = f"127.0.0.1:{server.server_port}"
        yield f"?endpoint_override={endpoint}&scheme=http&region=us-east-1", ranges
    finally:
        server.shutdown()
        server.server_close()
