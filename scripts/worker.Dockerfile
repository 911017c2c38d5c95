# An image for workers of Beam that run Lengthwise: Dataflow, Flink and Spark on Kubernetes, or any
# runner with --environment_type=DOCKER. Build it at the top of the repository:
#
#   docker build -f scripts/worker.Dockerfile -t REGISTRY/lengthwise-worker:0.1.0 .
#
# Python's minor version and Beam's are those of the driver. With --build-arg extra= it has what plan
# and build need, and none of what only predict needs (TensorFlow: most of the size).
FROM apache/beam_python3.11_sdk:2.77.0
ARG extra="keras tensorflow matplotlib pyyaml"

WORKDIR /tmp/lengthwise
COPY constraints.txt ./
RUN python -m pip install --no-cache-dir -c constraints.txt crc32c isal numpy protobuf pyarrow click rich $extra
RUN python -m pip install --no-cache-dir -c constraints.txt setuptools
COPY pyproject.toml setup.py README.md LICENSE ./
COPY dataset dataset
COPY transforms transforms
COPY pipeline pipeline
COPY model model
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation .
RUN python -c "from lengthwise.pipeline.versions import versions; print(versions())"
WORKDIR /
