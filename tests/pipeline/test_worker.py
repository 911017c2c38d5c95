"""Bundles of the local runner end as soon as their work is done, in this process and in others."""

import sys

import apache_beam as beam
import pytest
from apache_beam.runners.worker import sdk_worker_main, statesampler

from lengthwise.pipeline import worker
from lengthwise.pipeline.runners import Execution, run_pipeline


@pytest.fixture(autouse=True)
def restored():
    usual = statesampler.StateSampler.__init__.__defaults__
    assert usual == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,)
    yield
    assert statesampler.StateSampler.__init__.__defaults__ == usual


def test_a_bundle_of_this_process_does_not_wait_for_a_sample_of_its_state(tmp_path):
    path = tmp_path / "period"

    def write_period(_):
        path.write_text(str(statesampler.get_current_tracker().sampling_period_ms))

    run_pipeline(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(write_period), Execution())

    assert int(path.read_text()) < statesampler.DEFAULT_SAMPLING_PERIOD_MS / 10


def test_nor_does_one_of_a_worker_process(monkeypatch):
    periods = []

    def serve(_):
        periods.extend(statesampler.StateSampler.__init__.__defaults__)

    monkeypatch.setattr(sdk_worker_main, "main", serve)
    monkeypatch.setattr(worker.logging, "disable", lambda _: None)
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)
    monkeypatch.setattr(sys, "argv", ["worker"])

    worker.main()

    assert periods
    assert max(periods) < statesampler.DEFAULT_SAMPLING_PERIOD_MS / 10


def test_a_period_that_somebody_else_has_chosen_stays(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(statesampler.StateSampler.__init__, "__defaults__", (50,))
        with worker.bundles_end_soon():
            assert statesampler.StateSampler.__init__.__defaults__ == (50,)
        assert statesampler.StateSampler.__init__.__defaults__ == (50,)


def test_a_beam_without_the_period_is_left_alone(monkeypatch):
    monkeypatch.delattr(statesampler, "DEFAULT_SAMPLING_PERIOD_MS")
    usual = statesampler.StateSampler.__init__.__defaults__
    with worker.bundles_end_soon():
        assert statesampler.StateSampler.__init__.__defaults__ == usual
