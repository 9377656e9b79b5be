import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.data.batches.test_pixel_cache import write_images
from unalike.data.batches.augment import Augmentation
from unalike.data.batches.loader import PREFETCH, TrainingLoader
from unalike.data.batches.pixel_cache import PixelCache
from unalike.data.batches.sampler import ClassBalancedSampler
from unalike.data.imageset import ImageSet
from unalike.errors import DataError

COLOR = {"brightness": 0.5, "contrast": 0.3, "saturation": 0.1, "hue": 0.1}


def make(images, *, workers=2, height=16, width=16, batch=4, instances=2, **store_options):
    store = PixelCache(images, shorter_side=24, **store_options)
    augmentation = Augmentation(
        height, width, color=COLOR, blur={"kernel": [5, 5], "sigma": [0.3, 0.7]}, erase_prob=0.5, seed=2
    )
    sampler = ClassBalancedSampler(images.labels_N, batch_size=batch, num_instance=instances, seed=2)
    return TrainingLoader(images, store, augmentation, sampler, workers=workers)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "in", [(20 + i, 34 - i) for i in range(14)])


def ours():
    return [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_batches_have_the_documented_shapes(images):
    batches = list(make(images).epoch(0))
    assert len(batches) == len(make(images)) == 4
    for b in batches:
        assert b.images_BCHW.shape == (4, 3, 16, 16) and b.images_BCHW.dtype == torch.float32
        assert b.images_BCHW.is_contiguous(memory_format=torch.channels_last)
        assert b.labels_B.dtype == b.indices_B.dtype == torch.int64
        assert np.array_equal(b.labels_B.numpy(), images.labels_N[b.indices_B.numpy()])


@pytest.mark.parametrize("batch", [4, 13])
def test_bit_for_bit_the_same_with_any_number_of_workers(images, batch):
    runs = [list(make(images, workers=w, batch=batch).epoch(3)) for w in (1, 2, 5)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            assert torch.equal(a.images_BCHW, b.images_BCHW) and torch.equal(a.indices_B, b.indices_B)


def test_a_batch_is_crop_then_finish_of_its_images(images):
    loader = make(images)
    plan, occurrence = loader.sampler.plan(1)
    for b, index, uses in zip(loader.epoch(1), plan, occurrence, strict=True):
        views = [loader.augmentation.crop(loader.cache.get(i), 1, i, o) for i, o in zip(index, uses, strict=True)]
        expected = loader.augmentation.augment_batch(torch.from_numpy(np.stack(views)), 1, index, uses)
        assert torch.equal(b.images_BCHW, expected)


def test_start_step_skips_without_decoding(images):
    complete = list(make(images).epoch(2))
    loader = make(images)
    rest = list(loader.epoch(2, start_step=3))
    assert len(rest) == len(complete) - 3
    assert all(torch.equal(a.images_BCHW, b.images_BCHW) for a, b in zip(rest, complete[3:], strict=True))
    assert loader.cache.decodes <= 4
    assert list(loader.epoch(2, start_step=4)) == []


def test_d16_decoded_once_over_all_epochs(images):
    loader = make(images)
    for epoch in range(4):
        list(loader.epoch(epoch))
    assert loader.cache.decodes == len(images)


def test_d19_views_of_320_x_160(images):
    b = next(iter(make(images, height=320, width=160).epoch(0)))
    assert b.images_BCHW.shape == (4, 3, 320, 160)


def test_d20_unreadable_images_are_replaced_by_their_class_and_counted(tmp_path):
    images = write_images(tmp_path, [(24, 24)] * 20, bad=[4, 7])
    loader = make(images, max_unreadable=0.1)
    for epoch in range(2):
        plan = loader.sampler.epoch(epoch)
        for b, wanted in zip(loader.epoch(epoch), plan, strict=True):
            got = b.indices_B.numpy()
            assert len(got) == 4 and not set(got) & {4, 7}
            assert np.array_equal(b.labels_B.numpy(), images.labels_N[wanted]), "the batch keeps its classes"
            assert np.array_equal(got[~np.isin(wanted, [4, 7])], wanted[~np.isin(wanted, [4, 7])])
    assert set(loader.cache.failures) == {4, 7} and loader.cache.decodes == 20


def test_d20_too_many_unreadable_end_the_epoch_with_an_error(tmp_path):
    images = write_images(tmp_path, [(24, 24)] * 20, bad=[4, 7, 9])
    loader = make(images, max_unreadable=0.1)
    with pytest.raises(DataError, match="3 of 20 .*max_unreadable"):
        for epoch in range(3):
            list(loader.epoch(epoch))
    assert not ours()


def test_d20_a_class_without_a_readable_image_gives_its_place_away(tmp_path):
    images = write_images(tmp_path, [(24, 24)] * 20, bad=[19])
    images = ImageSet(images.paths, np.array([0] * 10 + [1] * 9 + [2]), ("a", "b", "lone"))
    batches = list(make(images, batch=6, max_unreadable=0.05).epoch(0))
    for b in batches:
        assert 19 not in b.indices_B
        assert np.array_equal(b.labels_B.numpy(), images.labels_N[b.indices_B.numpy()])
    assert batches


def test_d20_nothing_readable_is_an_error(tmp_path):
    images = write_images(tmp_path, [(24, 24)] * 8, bad=range(8))
    with pytest.raises(DataError, match="none of the 8"):
        list(make(images, max_unreadable=1.0).epoch(0))


def test_workers_without_the_call_that_macos_lacks(images, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert make(images, workers=0).workers >= 1


def test_closing_early_stops_the_threads(images):
    batches = make(images).epoch(0)
    next(batches)
    assert ours()
    batches.close()
    assert not ours()


def test_a_fault_in_a_thread_reaches_the_loop(images):
    loader = make(images)

    def broken(*_):
        raise ZeroDivisionError("in a thread")

    loader.augmentation.apply_crop = broken
    with pytest.raises(ZeroDivisionError, match="in a thread"):
        list(loader.epoch(0))
    assert not ours()


def test_no_more_than_the_prefetched_batches_are_under_way(tmp_path):
    images = write_images(tmp_path, [(16, 16)] * 60)
    loader = make(images)
    asked = []
    loader.cache = SimpleNamespace(get=lambda i: asked.append(i) or np.zeros((16, 16, 3), np.uint8))
    batches = loader.epoch(0)
    next(batches)
    for _ in range(200):
        if len(asked) >= 4 * PREFETCH:
            break
        threading.Event().wait(0.005)
    threading.Event().wait(0.05)
    assert len(asked) == 4 * PREFETCH
    batches.close()


def test_workers_leave_torchs_thread_count_alone(images):
    before = torch.get_num_threads()
    list(make(images, workers=4).epoch(0))
    assert torch.get_num_threads() == before
    counts = []
    later = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert counts == [before]


def test_other_formats_pass(tmp_path):
    paths = []
    for i, (mode, name) in enumerate([("L", "a.png"), ("RGBA", "b.png"), ("RGB", "c.jpg"), ("CMYK", "d.jpg")]):
        Image.new(mode, (30, 20 + i)).save(tmp_path / name)
        paths.append(tmp_path / name)
    images = ImageSet(tuple(paths), np.array([0, 0, 1, 1]), ("a", "b"))
    assert sum(len(b.labels_B) for b in make(images).epoch(0)) == 4
