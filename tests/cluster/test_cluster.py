"""What `scripts/cluster` does where there is no cluster: the cluster itself tests with it."""

from __future__ import annotations

import os

from tests.cluster.__main__ import UNAVAILABLE, down, status, up
from tests.cluster.page import show_rows
from tests.cluster.processes import NAMES, Cluster, Ports
from tests.cluster.trials import Row


def test_a_machine_without_java_is_told_so_and_nothing_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    cluster = Cluster(tmp_path / "cluster", Ports())
    assert up(cluster) == UNAVAILABLE
    assert capsys.readouterr().err.startswith("cluster: not started: ")
    assert not cluster.folder.exists()


def test_a_process_that_took_over_a_number_is_not_ours(tmp_path, capsys):
    # Ports nobody listens at: the first is reserved, and no process of ours opens it.
    cluster = Cluster(tmp_path / "cluster", Ports(rest=1))
    (cluster.folder / "pids").mkdir(parents=True)
    for name in NAMES:
        (cluster.folder / "pids" / name).write_text(f"{os.getpid()}\n")
    assert status(cluster) == 1
    assert capsys.readouterr().out.count("does not run") == len(NAMES)
    assert down(cluster) == 0
    assert not cluster.folder.exists()


def test_the_table_says_what_was_not_run(capsys):
    cells = dict.fromkeys(("plan", "build (spill)", "build (engine)", "predict"), "yes")
    wrong = cells | {"predict": "**no**"}
    rows = [
        Row("here", cells, {"the command is killed": "run again"}),
        Row("there", wrong, remark="no hot keys"),
        Row("Prism", remark="not run: see scripts/cluster prism"),
    ]
    show_rows(rows, "Flink", write=False)
    here, there, prism, *_, remark = capsys.readouterr().out.splitlines()[5:]
    assert here == "| here | yes | yes | yes | yes | yes | the command is killed: run again |"
    assert there == "| there | yes | yes | yes | **no** | see left |  |"
    assert prism == "| Prism | not run: see scripts/cluster prism | | | | | |"
    assert remark == "there: no hot keys."
