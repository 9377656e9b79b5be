import numpy as np
import pytest
from PIL import Image

from unalike import progress
from unalike.data.batches.pixel_cache import PixelCache, downscale
from unalike.data.imageset import ImageSet
from unalike.data.notices import Notices
from unalike.errors import DataError, UnreadableImage


@pytest.fixture
def loud(monkeypatch):
    """Lines said once are said anew, whatever tests ran before."""
    monkeypatch.setattr(progress, "_said", set())
    monkeypatch.setattr(progress, "_verbosity", 1)


def write_images(folder, sizes, bad=()):
    """PNGs of these (height, width); those in ``bad`` hold rubbish."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    paths = []
    for i, (height, width) in enumerate(sizes):
        path = folder / f"{i:03d} ü.png"
        if i in bad:
            path.write_bytes(b"\x89PNG rubbish")
        else:
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return ImageSet(tuple(paths), np.arange(len(paths)) % 2, ("a", "b"))


@pytest.mark.parametrize("mode", ["memory", "disk", "none"])
def test_modes_give_equal_pixels(tmp_path, mode):
    images = write_images(tmp_path / "in", [(40, 60), (20, 30), (32, 32), (64, 33)])
    cache = PixelCache(images, shorter_side=32, mode=mode, directory=tmp_path / "cache")
    for _ in range(2):
        for i, path in enumerate(images.paths):
            expected = downscale(np.asarray(Image.open(path).convert("RGB")), 32)
            got = cache.get(i)
            assert got.dtype == np.uint8 and np.array_equal(got, expected)
    assert cache.decodes == (8 if mode == "none" else 4)
    cache.close()
    assert np.array_equal(cache.get(0), downscale(np.asarray(Image.open(images.paths[0])), 32)), "usable after close"


def test_shorter_side_is_bounded_aspect_kept_small_ones_untouched():
    big = np.zeros((90, 150, 3), np.uint8)
    assert downscale(big, 30).shape == (30, 50, 3)
    assert downscale(big.transpose(1, 0, 2), 30).shape == (50, 30, 3)
    assert downscale(big, 90).shape == big.shape and downscale(big, 500).shape == big.shape
    assert downscale(np.zeros((1, 400, 3), np.uint8), 1).shape == (1, 400, 3)


def test_shrinking_is_pils_antialiased_bicubic():
    rng = np.random.default_rng(1)
    image = np.kron(rng.integers(0, 256, (12, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((30, 40), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(downscale(image, 30).astype(int) - expected).max() <= 2


def test_d16_each_file_is_decoded_once_and_the_decoded_pixels_serve_all_epochs(tmp_path):
    images = write_images(tmp_path, [(20, 20)] * 6)
    cache = PixelCache(images, shorter_side=16)
    for _ in range(5):
        for i in range(6):
            cache.get(i)
    assert cache.decodes == 6 and cache.cached == 6 and cache.cached_bytes == 6 * 16 * 16 * 3


@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_bound_is_kept_and_the_rest_said_once_with_the_count(tmp_path, mode, capsys, loud):
    images = write_images(tmp_path / "in", [(16, 16)] * 5)
    cache = PixelCache(images, shorter_side=16, mode=mode, limit_bytes=2 * 16 * 16 * 3 + 100, directory=tmp_path)
    for _ in range(3):
        for i in range(5):
            cache.get(i)
    assert cache.cached == 2 and cache.cached_bytes <= cache.limit_bytes
    assert cache.decodes == 5 + 2 * 3
    output = capsys.readouterr().err
    assert output.count("decoded every epoch") == 1 and "2 images cached, the other 3" in output


def test_threads_never_decode_one_file_twice(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    images = write_images(tmp_path, [(24, 24)] * 4)
    cache = PixelCache(images, shorter_side=16)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: cache.get(n % 4), range(200)))
    assert cache.decodes == 4


def test_d20_unreadable_is_noted_by_name_and_not_tried_again(tmp_path):
    images = write_images(tmp_path, [(16, 16)] * 8, bad=[3])
    notices = Notices()
    cache = PixelCache(images, shorter_side=16, max_unreadable=0.2, notices=notices)
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            cache.get(3)
    assert cache.unreadable(3) and not cache.unreadable(2) and cache.decodes == 1
    assert notices.counts == {"unreadable": 1} and list(cache.failures) == [3]


def test_d20_beyond_the_limit_is_an_error_with_the_remedy(tmp_path):
    images = write_images(tmp_path, [(16, 16)] * 8, bad=[0, 1])
    cache = PixelCache(images, shorter_side=16, max_unreadable=0.125)
    with pytest.raises(UnreadableImage):
        cache.get(0)
    with pytest.raises(DataError, match="2 of 8 .*max_unreadable") as caught:
        cache.get(1)
    assert not isinstance(caught.value, UnreadableImage)


@pytest.mark.parametrize("share, fails", [(0.05, False), (0.0, True)])
def test_d20_one_of_few_may_be_unreadable_unless_none_may(tmp_path, share, fails):
    cache = PixelCache(write_images(tmp_path, [(16, 16)] * 8, bad=[0]), shorter_side=16, max_unreadable=share)
    with pytest.raises(DataError if fails else UnreadableImage):
        cache.get(0)


def test_wrong_settings_are_errors_of_ours(tmp_path):
    images = write_images(tmp_path, [(8, 8)])
    with pytest.raises(DataError, match="memory, disk, none"):
        PixelCache(images, shorter_side=8, mode="ram")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="dataset.cache.directory"):
        PixelCache(images, shorter_side=8, mode="disk", directory=tmp_path / "file")


@pytest.mark.parametrize("mode", ["memory", "disk", "none"])
def test_an_image_of_several_regions_is_decoded_once(tmp_path, mode):
    files = write_images(tmp_path / "in", [(40, 60), (30, 30), (50, 20)], bad=(2,)).paths
    paths = tuple(type(files[0])(f"{files[n % 3]}#{n},0,{20 + n},20") for n in range(12))
    images = ImageSet(paths, np.arange(12) % 2, ("a", "b"))
    cache = PixelCache(images, shorter_side=16, mode=mode, directory=tmp_path / "cache", max_unreadable=0.5)
    for _ in range(2):
        for i in (*range(11, -1, -1), 5):
            if i % 3 == 2:
                with pytest.raises(UnreadableImage):
                    cache.get(i)
                continue
            whole = np.asarray(Image.open(files[i % 3]).convert("RGB"))
            assert np.array_equal(cache.get(i), downscale(np.ascontiguousarray(whole[:20, i : 20 + 2 * i]), 16))
    assert cache.decodes == (3 if mode != "none" else 2 * 8 + 4)
