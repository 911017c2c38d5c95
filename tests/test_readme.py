"""README and docs/serving.md, done: every example runs, in the order in which it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def code_blocks(page: str, language: str) -> list[str]:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_examples_run(tmp_path):
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    blocks = code_blocks("README.md", "bash")
    commands = next(block for block in blocks if "lengthwise plan" in block)
    # One epoch tells as much about the commands as forty.
    commands = commands.replace("--run-dir run", "--run-dir run --epochs 1")
    # The page goes on with the dataset and the run of the README.
    commands += "\n".join(code_blocks("docs/serving.md", "bash"))
    program = tmp_path / "examples.py"
    blocks = [*code_blocks("README.md", "python"), *code_blocks("docs/serving.md", "python")]
    program.write_text("\n".join(blocks), encoding="utf-8")
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    }
    for command in (["bash", "-e", "-c", commands], [sys.executable, str(program)]):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "vowels" / "report.html").is_file()
    assert (tmp_path / "run").is_dir()
    assert (tmp_path / "models" / "vowels" / "1" / "saved_model.pb").is_file()
    assert (tmp_path / "vowels-from-python" / "dataset.json").is_file()
    assert len(list((tmp_path / "own-records").glob("*.tfrecord"))) == 4
