"""Where the time of `lengthwise build` goes: CPU µs per row of each stage.

Builds in this process, with one worker, and times the stages as they call each other; the time of a stage
is its own, without the stages it calls. What no stage has is Beam, reports, planning and commit.

    python benchmarks/profile_build.py --kind floats --rows 106496
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table

# Stage -> the functions that are it, as named in the modules that call them.
STAGES = {
    "ingest: decode Parquet": ("ingest:read_unit",),
    "ingest: keys and splits": ("ingest:row_keys", "ingest:assign_splits", "ingest:tally_by_split"),
    "ingest: validate": ("ingest:ragged_rows",),
    "ingest: statistics": ("ingest:summarize",),
    "ingest: histogram": ("ingest:_measure",),
    "ingest: pack and sort by length": ("ingest:pack_rows", "ingest:_sorted_by_length"),
    "ingest: write to staging": ("ingest:_ingest",),
    "exchange: refer to rows": ("exchange:refer_to_rows",),
    "exchange: gather the rows of a shard": ("exchange:_rows_of",),
    "exchange: view rows": ("exchange:unpack_rows",),
    "exchange: pad and encode": ("exchange:encode_rows",),
    "exchange: checksums of records": ("encoding:seal_frames",),
    "exchange: order rows, write, file checksum": ("exchange:write_shard",),
    "exchange: sync": ("writing:os.fsync",),
}
