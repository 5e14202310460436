"""Loader processes: what they make comes in order, and their end has a name."""

import pytest
import torch
from torch.utils.data import Dataset

from foveate.errors import ImageDamaged, WorkerLost
from model.training.stream import loaders_watched, stream


class Samples(Dataset):
    """The sum of each key; one key is damaged."""

    def __getitem__(self, key):
        if key == (7, 7):
            raise ImageDamaged("a.tif is damaged", hint="Copy it again.")
        return torch.tensor(sum(key))


KEYS = [[(0, 1), (1, 1)], [(2, 2), (3, 0)]]


def gathered(keys, loaders):
    with loaders_watched():
        return [minibatch.tolist() for minibatch in stream(Samples(), keys, torch.stack, loaders=loaders)]


@pytest.mark.parametrize("loaders", [0, 1, 2])
def test_minibatches_come_in_order(loaders):
    assert gathered(KEYS, loaders) == [[1, 2], [4, 3]]


@pytest.mark.parametrize("loaders", [0, 1])
def test_an_error_of_ours_arrives_as_it_was_raised(loaders):
    with pytest.raises(ImageDamaged, match="is damaged"):
        gathered([*KEYS, [(7, 7)]], loaders)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        EOFError(),
        ConnectionResetError("reset"),
    ],
    ids=repr,
)
def test_a_loader_that_was_killed_is_told_with_how_to_go_on(error):
    """In the words that torch was seen to have; when it says which is chance, so no process is killed here."""
    with pytest.raises(WorkerLost, match=r"has ended: \w") as caught, loaders_watched():
        raise error
    assert "goes on from the last checkpoint" in caught.value.hint


def test_another_error_of_torch_stays_what_it_is():
    with pytest.raises(RuntimeError, match="no loader"), loaders_watched():
        raise RuntimeError("no loader of ours")
