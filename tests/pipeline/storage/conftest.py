"""An S3 server in a process of its own: moto, which keeps its buckets in memory."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from lengthwise.dataset.storage import RemotePath

SECRET = "a-secret-that-nobody-may-print"

# Prints its port: of those that are free the system knows one.
_SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3() -> Iterator[RemotePath]:
    """A bucket, with endpoint and credentials in the environment as a user has them there."""
    pytest.importorskip("moto", reason="the tests' S3 server is not installed: scripts/test does")
    with (
        subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        assert server.stdin is not None and server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        patch.setenv("AWS_ENDPOINT_URL", endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        request = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
        urllib.request.urlopen(request).close()
        yield RemotePath("s3://bucket")
        server.stdin.close()


@pytest.fixture
def prefix(s3: RemotePath, request: pytest.FixtureRequest) -> RemotePath:
    """A place in the bucket that no other test uses."""
    return s3 / request.node.name.replace("[", "-").rstrip("]")
