import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import networks
from unalike.data import pillow
from unalike.data.notices import Notices
from unalike.engines.torch_engine import TorchEngine
from unalike.errors import DataError
from unalike.inference.embedding import embed_files


class MeanEngine:
    """Vectors that say which image they came from: the mean colour. Notes the size of every call."""

    name, precision, dim, input_size, batch = "mean", "fp32", 3, networks.SIZE, 8

    def __init__(self):
        self.calls = []

    def describe(self):
        return {}

    def __call__(self, images_BHWC):
        self.calls.append(len(images_BHWC))
        return images_BHWC.astype(np.float32).mean((1, 2))


@pytest.fixture
def folder(tmp_path):
    def make(count, broken=()):
        paths = []
        for number in range(count):
            path = tmp_path / f"bild ü {number}.png"
            if number in broken:
                path.write_bytes(b"\x89PNG\r\n not an image")
            else:
                Image.new("RGB", (40, 60), (number, 255 - number, 7)).save(path)
            paths.append(path)
        return paths

    return make


@pytest.mark.parametrize("count", [1, 8, 19])
def test_d32_no_image_is_dropped_and_order_is_kept(folder, count):
    engine = MeanEngine()
    done = embed_files(engine, folder(count), networks.VIEW)
    assert done.vectors_ND.shape == (count, 3) and done.failures == ()
    assert done.vectors_ND[:, 0].tolist() == list(range(count))
    assert done.kept_N.tolist() == list(range(count))
    assert sum(engine.calls) == count and max(engine.calls) <= 8


def test_d28_fewer_images_than_a_batch(folder):
    engine = MeanEngine()
    done = embed_files(engine, folder(3), networks.VIEW, batch_size=64)
    assert engine.calls == [3] and len(done.vectors_ND) == 3


def test_d26_each_image_is_decoded_once(folder, monkeypatch):
    opened = Counter()
    real = pillow.open_file

    def counting(source):
        opened[str(source)] += 1
        return real(source)

    monkeypatch.setattr(pillow, "open_file", counting)
    paths = folder(21)
    embed_files(MeanEngine(), paths, networks.VIEW, workers=3)
    assert opened == Counter(map(str, paths))


def test_an_image_of_several_regions_is_decoded_once(folder, monkeypatch):
    opened = Counter()
    real = pillow.open_file

    def counting(source):
        opened[str(source)] += 1
        return real(source)

    files = folder(7, broken=(5,))
    paths = [f"{files[n % 7]}#{n % 5},{n % 3},{10 + n},20" for n in range(70)] + [files[0]]
    expected = [n % 7 for n in range(70) if n % 7 != 5] + [0]
    monkeypatch.setattr(pillow, "open_file", counting)
    done = embed_files(MeanEngine(), paths, networks.VIEW, workers=3, max_unreadable=0.5)
    assert opened == Counter({str(file): 1 + (file == files[0]) for file in files})  # whole, and in regions
    assert done.kept_N.tolist() == [n for n in range(71) if n == 70 or n % 7 != 5] and len(done.failures) == 10
    assert done.vectors_ND[:, 0].tolist() == expected and done.attempt_N.tolist() == list(range(71))
    stopped = embed_files(
        MeanEngine(),
        paths[:70],
        networks.VIEW,
        batch_size=10,
        max_unreadable=0.5,
        stop=lambda count, total: count >= 20,
    )
    assert stopped.kept_N.tolist() == sorted([*range(0, 70, 7), *range(1, 70, 7)])
    assert stopped.vectors_ND[:, 0].tolist() == (stopped.kept_N % 7).tolist()


def test_d20_unreadable_images_are_counted_and_named(folder):
    paths, notices = folder(40, broken=(3, 17)), Notices()
    done = embed_files(MeanEngine(), paths, networks.VIEW, notices=notices, max_unreadable=0.05)
    assert done.kept_N.tolist() == [i for i in range(40) if i not in (3, 17)]
    assert done.vectors_ND[:, 0].tolist() == done.kept_N.tolist()
    assert [Path(path) for path, _ in done.failures] == [paths[3], paths[17]]
    assert notices.counts == {"unreadable": 2}


def test_d20_beyond_the_limit_is_an_error_with_names(folder):
    with pytest.raises(DataError, match=r"expected at most 2") as caught:
        embed_files(MeanEngine(), folder(40, broken=(3, 17, 20)), networks.VIEW, max_unreadable=0.05)
    assert "bild ü 3.png" in str(caught.value) and "raise dataset.max_unreadable" in str(caught.value)
    # A command without that option names no remedy that it does not have; nor does a limit help where nothing is readable.
    for broken, share in (((3, 17, 20), None), (range(40), 1.0)):
        with pytest.raises(DataError, match="repair or remove them") as caught:
            embed_files(MeanEngine(), folder(40, broken=tuple(broken)), networks.VIEW, max_unreadable=share)
        assert "max_unreadable" not in str(caught.value)
    with pytest.raises(DataError, match="expected at most 0"):
        embed_files(MeanEngine(), folder(40, broken=(3,)), networks.VIEW, max_unreadable=0)


def test_one_bad_file_of_a_handful_is_passed_over_but_not_the_only_one(folder):
    assert len(embed_files(MeanEngine(), folder(3, broken=(1,)), networks.VIEW).failures) == 1
    with pytest.raises(DataError, match="cannot be read"):
        embed_files(MeanEngine(), folder(1, broken=(0,)), networks.VIEW)


def test_no_files_give_no_vectors():
    done = embed_files(MeanEngine(), [], networks.VIEW)
    assert done.vectors_ND.shape == (0, 3) and done.kept_N.shape == (0,)


def test_a_fault_of_the_engine_ends_the_threads_and_is_passed_on(folder):
    class Broken(MeanEngine):
        def __call__(self, images_BHWC):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        embed_files(Broken(), folder(30), networks.VIEW)


def test_memory_is_bounded_by_batches_not_by_files(folder):
    """No more images are in memory than two batches ahead."""
    alive, most = 0, 0

    def view(path, *, max_pixels):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return networks.VIEW(path, max_pixels=max_pixels)

    class Counting(MeanEngine):
        def __call__(self, images_BHWC):
            nonlocal alive
            alive -= len(images_BHWC)
            return super().__call__(images_BHWC)

    embed_files(Counting(), folder(60), view, batch_size=4)
    assert most <= 3 * 4 + 1


class SlowFirst(MeanEngine):
    """Its first batch comes back last, as from a slower device."""

    def __call__(self, images_BHWC):
        if not self.calls:
            time.sleep(0.05)
        return super().__call__(images_BHWC)


def test_d15_several_engines_share_the_files_and_give_what_one_gives(folder):
    paths = folder(41, broken={0, 17})
    one = embed_files(MeanEngine(), paths, networks.VIEW, batch_size=4)
    crew = [SlowFirst(), SlowFirst(), SlowFirst()]
    several = embed_files(crew, paths, networks.VIEW, batch_size=4)
    assert np.array_equal(several.vectors_ND, one.vectors_ND)
    assert several.kept_N.tolist() == one.kept_N.tolist() == [i for i in range(41) if i not in (0, 17)]
    assert several.failures == one.failures
    assert sum(sum(engine.calls) for engine in crew) == 39 and all(engine.calls for engine in crew)


def test_what_one_of_several_engines_raises_is_raised(folder):
    class Broken(MeanEngine):
        def __call__(self, images_BHWC):
            raise DataError("the device is gone")

    with pytest.raises(DataError, match="the device is gone"):
        embed_files([Broken(), Broken()], folder(40), networks.VIEW, batch_size=2)


def test_d15_two_torch_engines_equal_one(folder):
    import torch

    def engine():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        return TorchEngine(network.eval(), (0.5,) * 3, (0.25,) * 3, networks.SIZE, device="cpu")

    paths = folder(23)
    one = embed_files(engine(), paths, networks.VIEW, batch_size=3)
    two = embed_files([engine(), engine()], paths, networks.VIEW, batch_size=3)
    assert np.allclose(one.vectors_ND, two.vectors_ND, atol=1e-6) and two.kept_N.tolist() == list(range(23))


def test_a_refused_set_names_a_file_of_each_format(tmp_path):
    paths = []
    for name, brand in (("a.HEIC", b"heic"), ("b.HEIC", b"heic"), ("c.HEIC", b"heic"), ("d.avif", b"avif")):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand)
    with pytest.raises(DataError, match=r"4 or more of 4 images.*a\.HEIC.*d\.avif"):
        embed_files(MeanEngine(), paths, networks.VIEW)
