"""The command line answers for its usage without the heavy libraries, so it answers at once."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from lengthwise.pipeline.commands import main

sys.argv = ["lengthwise", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_usage_loads_no_heavy_library(argument, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, argument],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded & {"apache_beam", "keras", "numpy", "pyarrow", "tensorflow"} == set()
