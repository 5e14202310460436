"""The coarse pass of refined coverage: its stretches, what a killed job keeps of them, and that lanes never run dry."""

import os
from collections import Counter
from threading import Event

import numpy as np
import pytest

from tests.bundles import CURVE, make_bundle
from tests.worker.computed import mask_of, spec_for, write_image
from worker.canvas import Canvas
from worker.coarse import CoarsePass
from worker.trees import stretches


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "nested"
    return make_bundle(folder, kind="any", spacing=None, mapping="explicit", policy="mode", coverage={"curve": CURVE})


@pytest.fixture
def spec_in(bundle, tmp_path, monkeypatch):
    """Makes jobs on one image of three rows of five roots, in three stretches a row, each in a folder of its own."""
    monkeypatch.setattr("worker.trees._TOGETHER", 2)
    rng = np.random.default_rng(3)
    squares = np.kron(rng.integers(0, 256, (17, 34, 3), np.uint8), np.ones((36, 36, 1), np.uint8))
    image = write_image(tmp_path / "i.tif", squares[:530, :1100])
    common = {"coverage": "refined", "detail": 0.5, "batch": 2}
    return lambda name, **options: spec_for(image, bundle, tmp_path / name, **common, **options)


@pytest.fixture
def forwarded(monkeypatch):
    """How often each root was forwarded, by row and column."""
    times: Counter[tuple[int, int]] = Counter()
    forward = CoarsePass._forward

    def counting(coarse, read):
        times.update((shot.row, shot.column) for shot in read[0].group)
        return forward(coarse, read)

    monkeypatch.setattr(CoarsePass, "_forward", counting)
    return times


def test_stretches_of_roots_do_not_change_the_mask(spec_in, monkeypatch):
    short = spec_in("short", block=3)
    mask = mask_of(short)
    monkeypatch.setattr("worker.trees._TOGETHER", 64)
    long = spec_in("long", block=3)
    assert (mask_of(long) == mask).all()
    assert [len(list((spec.canvas / "roots").iterdir())) for spec in (short, long)] == [9, 3]


@pytest.mark.parametrize("survivors", [1, 3])
def test_a_job_killed_in_the_coarse_pass_keeps_its_stretches(spec_in, forwarded, monkeypatch, survivors):
    usual = mask_of(spec_in("usual"))
    roots = set(forwarded)
    commit_roots = Canvas.commit_roots
    kept: list[set[tuple[int, int]]] = []

    def commit(canvas, first, found):
        if len(kept) == survivors:
            raise KeyboardInterrupt
        commit_roots(canvas, first, found)
        kept.append({(first.row, column) for column in found.columns.tolist()})

    spec = spec_in("killed")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Canvas, "commit_roots", commit)
        mask_of(spec)
    forwarded.clear()
    assert (mask_of(spec) == usual).all()
    assert forwarded == Counter(roots.difference(*kept))


def test_lanes_go_on_with_the_next_stretch_before_one_ends(spec_in, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})  # two lanes, whatever the machine
    another = Event()
    forward = CoarsePass._forward

    def held(coarse, read):
        if read[0].stretch.first.row == 0 and read[0].stretch.first.column == 0:
            assert another.wait(60), "no other stretch is forwarded beside the first"
        else:
            another.set()
        return forward(coarse, read)

    monkeypatch.setattr(CoarsePass, "_forward", held)
    mask_of(spec_in("held"))
    assert another.is_set()


def test_progress_never_falls_where_a_kept_stretch_is_lost(spec_in, monkeypatch):
    spec = spec_in("lost")
    mask = mask_of(spec)
    sorted((spec.canvas / "roots").iterdir())[0].unlink()
    shares = []
    run = CoarsePass.run

    def listening(coarse, readers, lanes, note_damage, pulse):
        run(coarse, readers, lanes, note_damage, lambda share: (shares.append(share), pulse(share)))

    monkeypatch.setattr(CoarsePass, "run", listening)
    assert (mask_of(spec) == mask).all()
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize(("batch", "lengths"), [(4, [16, 16, 8]), (24, [24, 16]), (64, [40])])
def test_a_stretch_holds_a_whole_batch(batch, lengths):
    parts = list(stretches(range(3, 43), batch))
    assert [len(part) for part in parts] == lengths
    assert [column for part in parts for column in part] == list(range(3, 43))
