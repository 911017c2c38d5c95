"""Batches for PyTorch. All but the first test need it: `pip install torch`, which is several GB."""

from __future__ import annotations

import importlib.util
import itertools
import sys

import numpy as np
import pytest

from lengthwise.dataset import UsageError
from lengthwise.model import torch_reader
from lengthwise.model.numpy_reader import as_numpy
from lengthwise.model.torch_reader import from_packed_sequence, to_packed_sequence, torch_batches

ROWS = 61

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, write_rows, make_rows):
    return write_rows(tmp_path_factory.mktemp("torch") / "dataset", {"train": make_rows(ROWS)})


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def load(torch):
    """The batches of a DataLoader as a list."""

    def batches(data, **options):
        return list(torch.utils.data.DataLoader(data, batch_size=None, **options))

    return batches


def ids(batches):
    return [int(number) for batch in batches for number in batch[0]["id"]]


def test_torch_is_asked_for_in_words_where_it_is_missing(dataset, monkeypatch):
    # What the import system takes for "not there".
    for name in ("torch", "torch.utils.data", "torch.nn.utils.rnn"):
        monkeypatch.setitem(sys.modules, name, None)
    torch_reader._torch_batches_class.cache_clear()
    for call in (
        lambda: torch_batches(dataset),
        lambda: to_packed_sequence(None, None),
        lambda: from_packed_sequence(None, None),
    ):
        with pytest.raises(UsageError, match="PyTorch is not installed: `pip install torch`"):
            call()


@needs_torch
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_of_numpy_whatever_the_workers(dataset, load, workers):
    options = {"batch_size": 7, "seed": 3, "epochs": 2, "start_step": 4, "sample_weight": True}
    data = torch_batches(dataset, **options)
    expected = as_numpy(dataset, **options)
    assert len(data) == len(expected)
    batches = load(data, num_workers=workers)
    for ours, theirs in zip(batches, expected, strict=True):
        assert ours[0].keys() == theirs[0].keys()
        for name, values in theirs[0].items():
            np.testing.assert_array_equal(ours[0][name].numpy(), values)
            assert ours[0][name].numpy().dtype == values.dtype
        np.testing.assert_array_equal(ours[1].numpy(), theirs[1])
        np.testing.assert_array_equal(ours[2].numpy(), theirs[2])


@needs_torch
@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_every_row_once_over_replicas_and_workers(dataset, load, replicas):
    by_replica = [
        load(
            torch_batches(dataset, batch_size=4, num_replicas=replicas, replica=replica),
            num_workers=replica % 3,
        )
        for replica in range(replicas)
    ]
    assert sorted(ids(itertools.chain(*by_replica))) == list(range(ROWS))
    for together in zip(*by_replica, strict=True):
        assert len({features["mask"].shape[1] for features, _ in together}) == 1


@needs_torch
def test_padded_replicas_have_as_many_rows_and_weights(dataset, load):
    by_replica = [
        load(torch_batches(dataset, batch_size=4, num_replicas=2, replica=r, pad_remainder=True))
        for r in range(2)
    ]
    real = []
    for together in zip(*by_replica, strict=True):
        for features, _, weight in together:
            assert len(features["id"]) == 4
            np.testing.assert_array_equal(weight.numpy(), features["length"].numpy() > 0)
            real += features["id"][weight > 0].tolist()
    assert sorted(real) == list(range(ROWS))


@needs_torch
def test_an_epoch_is_repeated_and_another_one_is_not(dataset, load):
    data = torch_batches(dataset, batch_size=7, epoch=5)
    first = ids(load(data))
    assert first == ids(load(data)) == ids(load(data, num_workers=2))
    other = ids(load(torch_batches(dataset, batch_size=7, epoch=6)))
    assert first != other
    assert sorted(first) == sorted(other)


@needs_torch
def test_a_persistent_loader_gives_every_epoch_whole(dataset, torch):
    loader = torch.utils.data.DataLoader(
        torch_batches(dataset, batch_size=7),
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
    )
    first, second = list(loader), list(loader)
    assert ids(first) == ids(second)
    assert sorted(ids(first)) == list(range(ROWS))
    assert len(loader) == len(first)


@needs_torch
def test_workers_that_start_afresh_read_the_same(dataset, load):
    data = torch_batches(dataset, batch_size=7)
    spawned = load(data, num_workers=1, multiprocessing_context="spawn")
    assert ids(spawned) == ids(load(data))


@needs_torch
def test_tensors_can_be_written(dataset, load, recwarn):
    for features, label in load(torch_batches(dataset, batch_size=7)):
        for tensor in (*features.values(), label):
            tensor.zero_()
    assert not [w for w in recwarn if "writable" in str(w.message)]
    assert sorted(ids(load(torch_batches(dataset, batch_size=7)))) == list(range(ROWS))


@needs_torch
def test_features_as_a_tuple(dataset, load):
    for features, _ in load(torch_batches(dataset, batch_size=7, form="tuple")):
        assert [tensor.dim() for tensor in features] == [3, 1, 2, 2, 1]


@needs_torch
def test_a_batch_of_rows_padded_right_is_packed_by_length(dataset, load, torch):
    for features, _ in load(torch_batches(dataset, batch_size=7)):
        frames, length = features["frames"], features["length"]
        packed = to_packed_sequence(frames, length)
        rows = torch.nn.utils.rnn.unpack_sequence(packed)
        for row, steps, n in zip(rows, frames, length, strict=True):
            np.testing.assert_array_equal(row.numpy(), steps[:n].numpy())
        same = to_packed_sequence(frames, mask=features["mask"])
        np.testing.assert_array_equal(packed.data.numpy(), same.data.numpy())


@needs_torch
def test_steps_are_packed_and_put_back_wherever_they_are(torch):
    mask = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    values = torch.randn(4, 4, 3, requires_grad=True)
    packed = to_packed_sequence(values, mask=mask)
    for row, steps, real in zip(
        torch.nn.utils.rnn.unpack_sequence(packed), values, mask, strict=True
    ):
        assert torch.equal(row, steps[real])
    back = from_packed_sequence(packed, mask)
    assert torch.equal(back, values * mask[..., None])
    (gradient,) = torch.autograd.grad(back.sum(), values)
    assert torch.equal(gradient, mask[..., None].expand_as(values).float())


@needs_torch
def test_outputs_are_put_back_in_batches_that_no_row_fills(torch):
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    values = torch.ones(2, 4, 3)
    packed = to_packed_sequence(values, mask=mask)
    assert torch.equal(from_packed_sequence(packed, mask), values * mask[..., None])


@needs_torch
def test_a_row_without_a_step_cannot_be_packed(torch):
    values = torch.ones(3, 2, 1)
    with pytest.raises(UsageError, match="row 1 of the batch has no real step"):
        to_packed_sequence(values, torch.tensor([2, 0, 1]))
    with pytest.raises(UsageError, match=r"leave such rows out, as in values\[mask.any\(1\)\]"):
        to_packed_sequence(values, mask=torch.zeros(3, 2, dtype=torch.bool))


@needs_torch
def test_either_length_or_mask_is_given(torch):
    values, length, mask = torch.ones(1, 2, 1), torch.tensor([2]), torch.ones(1, 2) > 0
    for given in ({}, {"length": length, "mask": mask}):
        with pytest.raises(UsageError, match="`length` or `mask`, one of them"):
            to_packed_sequence(values, **given)
