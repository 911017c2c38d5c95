"""What a runner is told that the user leaves open."""

from __future__ import annotations

import http.server
import socket
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lengthwise.dataset.errors import LengthwiseError, UsageError
from lengthwise.pipeline import Execution, build
from lengthwise.pipeline.runner_options import left_open

POOLS = ("--environment_type=EXTERNAL", "--environment_config=localhost:50000")


@pytest.fixture
def flink():
    """The address of something that answers as Flink does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = b'{"slots-total": 12}' if self.path == "/overview" else b""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody():
    """An address where nobody listens: the port is held, and never listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_flink_is_given_all_slots_and_a_pool_beside_each_task_manager(flink):
    told = left_open("FlinkRunner", [f"--flink_master={flink}"])
    assert told == (*POOLS, "--parallelism=12")


def test_what_the_user_says_comes_first(flink):
    master = f"--flink_master=http://{flink}/"
    assert left_open("FlinkRunner", [master, "--parallelism=3"]) == POOLS
    config = "--environment_config=localhost:7000"
    told = left_open("FlinkRunner", [master, config])
    assert told == ("--environment_type=EXTERNAL", "--parallelism=12")
    for environment in ("--environment_type=DOCKER", "--sdk_container_image=mine"):
        assert left_open("FlinkRunner", [master, environment]) == ("--parallelism=12",)


def test_a_runner_in_this_process_runs_its_workers_here():
    for runner in ("FlinkRunner", "SparkRunner", "PrismRunner"):
        assert left_open(runner, []) == ("--environment_type=LOOPBACK",)
    assert left_open("SparkRunner", ["--spark_master_url=local[2]"])[0].endswith("LOOPBACK")


def test_other_runners_decide_themselves():
    for runner in ("local", "FnApiRunner", "DataflowRunner"):
        assert left_open(runner, []) == ()


def test_any_job_server_finds_pools(flink):
    assert left_open("PortableRunner", [f"--job_endpoint={flink}"]) == POOLS
    # It alone knows the master, so nobody can be asked for slots.
    assert left_open("FlinkRunner", [f"--job_endpoint={flink}"]) == POOLS


@pytest.mark.parametrize(
    ("runner", "option"),
    [
        ("FlinkRunner", "--flink_master"),
        ("SparkRunner", "--spark_master_url"),
        ("PortableRunner", "--job_endpoint"),
    ],
)
def test_a_cluster_that_does_not_answer_is_told_in_one_line(runner, option, nobody, tmp_path):
    pq.write_table(pa.table({"tokens": [[1, 2], [3]]}), tmp_path / "rows.parquet")
    address = f"spark://{nobody}" if runner == "SparkRunner" else nobody
    execution = Execution(runner, beam_args=(f"{option}={address}",))
    with pytest.raises(
        LengthwiseError, match=rf"\({option}\) at {address} cannot be reached: "
    ) as e:
        build([tmp_path / "rows.parquet"], tmp_path / "out", execution=execution)
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_a_job_server_has_to_be_named():
    with pytest.raises(UsageError, match="--job_endpoint=HOST:PORT"):
        Execution("PortableRunner").check()


def test_what_a_runner_cannot_do_without_is_told_in_one_line():
    with pytest.raises(UsageError, match=r"--runner \S*NoSuchRunner"):
        Execution("NoSuchRunner").check()


def test_a_shuffle_in_memory_is_sent_references_only():
    assert Execution("PrismRunner").chosen_exchange == "spill"
    assert Execution("FlinkRunner").chosen_exchange == "engine"
    assert Execution("PrismRunner", exchange="engine").chosen_exchange == "engine"


def test_verbose_says_what_was_chosen_and_who_did_how_much(tmp_path, monkeypatch, capsys):
    pq.write_table(pa.table({"tokens": [[1], [2, 3], [4]]}), tmp_path / "rows.parquet", 1)
    monkeypatch.setenv("LENGTHWISE_VERBOSE", "1")
    build([tmp_path / "rows.parquet"], tmp_path / "out", execution=Execution("FnApiRunner"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "lengthwise: FnApiRunner: --exchange spill"
    assert [line.rpartition(" on ")[0] for line in lines[1:]] == [
        "lengthwise: units: 3",
        "lengthwise: shards: 1",
    ]
