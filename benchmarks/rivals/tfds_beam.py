"""TensorFlow Datasets: a builder on Beam, as its documentation on Beam datasets shows it.

Written: a `tf.train.Example` per row without padding, in TFRecords, shuffled as a whole by the hash
of a key; a dataset_info.json with features, the rows and bytes of every shard. No mask, no length,
no plan, no checksum of what is written; a folder of another name becomes the dataset at the end.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import tensorflow_datasets as tfds
from apache_beam.options.pipeline_options import PipelineOptions
from rivals import parquet_rows

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class Rows(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Any]] = [
        tfds.core.BuilderConfig(name="floats"),
        tfds.core.BuilderConfig(name="ids"),
    ]
    source = ""

    def _info(self) -> Any:
        kind = self.builder_config.name
        shape = (None, parquet_rows.WIDTH) if kind == "floats" else (None,)
        step = tfds.features.Tensor(shape=shape, dtype=np.dtype(parquet_rows.DTYPE[kind]))
        features = {parquet_rows.SEQUENCE[kind]: step, "label": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
        path, kind = Rows.source, self.builder_config.name
        return (
            beam.Create(range(parquet_rows.num_row_groups(path)))
            | beam.Reshuffle()
            | beam.FlatMap(examples, path=path, kind=kind)
        )


def examples(number: int, *, path: str, kind: str) -> Any:
    """The keys and examples of a row group."""
    name = parquet_rows.SEQUENCE[kind]
    group = parquet_rows.row_group(path, kind, number)
    for row, (steps, label) in enumerate(parquet_rows.rows_of(group)):
        yield number << 32 | row, {name: steps, "label": label}


def write(kind: str, source: str, output: str) -> None:
    """Parquet to a dataset folder."""
    Rows.source = source
    builder = Rows(data_dir=output, config=kind)
    options = PipelineOptions(["--runner", RUNNER])
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(beam_options=options))


def count(kind: str, output: str) -> dict[str, int]:
    """Rows and steps of what was written."""
    data = Rows(data_dir=output, config=kind).as_dataset(split="train")
    lengths = [len(row[parquet_rows.SEQUENCE[kind]]) for row in data.as_numpy_iterator()]
    return {"rows": len(lengths), "steps": sum(lengths)}
