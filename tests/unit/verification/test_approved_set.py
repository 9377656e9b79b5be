"""A saved set gives the same results; damage and files of other kinds are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.forged_files import forgeries
from tests.support.marks import VIEW, ThumbnailEngine, mark, render_mark
from unalike.actions.verify import open_verifier
from unalike.errors import DataError, UnalikeError
from unalike.recognition.gallery import Gallery
from unalike.spec.verify import Verify
from unalike.verification import approved_set
from unalike.verification.approved_set import ApprovedSet, enrollment_images
from unalike.verification.asset import open_asset
from unalike.verification.verifier import Verifier


def test_a_saved_set_gives_the_same_results(verifier: Verifier, tmp_path: Path) -> None:
    approved = ApprovedSet.load(verifier.save(tmp_path / "marks.set"))
    image = render_mark(2, 7)
    loaded = Verifier(approved, ThumbnailEngine(), VIEW)
    assert loaded.verify(image).to_dict() == verifier.verify(image).to_dict()
    assert approved.thresholds == verifier.thresholds


def test_thresholds_of_an_earlier_version_are_left_out(
    verifier: Verifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = verifier.save(tmp_path / "marks.set")
    monkeypatch.setattr(approved_set, "THRESHOLDS_VERSION", 99)
    assert ApprovedSet.load(path).thresholds is None
    assert "marks.set was calibrated by an earlier version" in capsys.readouterr().err


def test_damage_and_other_files_are_refused(verifier: Verifier, tmp_path: Path) -> None:
    path = verifier.save(tmp_path / "marks.set")
    with pytest.raises(DataError, match="holds no gallery"):
        Gallery.load(path)
    gallery = Gallery(4)
    gallery.enrol(np.eye(4, dtype=np.float32), ["a"] * 4)
    gallery.save(tmp_path / "shop.gallery")
    with pytest.raises(DataError, match="holds no approved assets"):
        ApprovedSet.load(tmp_path / "shop.gallery")
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    (tmp_path / "damaged.set").write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        ApprovedSet.load(tmp_path / "damaged.set")


def test_assets_are_enrolled_on_several_backgrounds() -> None:
    assert len(enrollment_images(mark(1))) == 6  # its own background is white, one of the three
    photo = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    (image,) = enrollment_images(open_asset(photo))
    assert np.array_equal(image, photo)


@pytest.mark.parametrize("share", [0.1, pytest.param(1.0, marks=pytest.mark.slow)], ids=["some", "all"])
def test_forged_sets_are_read_or_refused(verifier: Verifier, tmp_path: Path, share: float) -> None:
    """Values of other types under right checksums; what is read can be used."""
    saved = verifier.save(tmp_path / "saved")
    for what in forgeries(saved, tmp_path / "forged", share):
        try:
            approved = ApprovedSet.load(tmp_path / "forged")
            Verifier(approved, ThumbnailEngine(), VIEW)
            approved.gallery.search(np.ones((1, approved.gallery.dim)), 1)
            if approved.thresholds is not None:
                approved.thresholds.score(dict.fromkeys(approved.thresholds.limits, 1.0))
                str(approved.thresholds)
            approved.save(tmp_path / "again")
        except UnalikeError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
        except Exception as error:  # noqa: BLE001  named with the place, so that it can be mended
            pytest.fail(f"{what}: {type(error).__name__}: {error}")


@pytest.mark.parametrize("option", [{"trials": 9}, {"kinds": ["mirrored"]}, {"confidence": 0.9}, {"seed": 3}])
def test_options_of_a_calibration_that_does_not_run_are_said_to_be_unused(
    verifier: Verifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: dict[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved = verifier.save(tmp_path / "marks.set")
    monkeypatch.setattr(Verifier, "load", lambda *_, **__: verifier)
    assert open_verifier(Verify(reference=str(saved))) is verifier
    assert "not used" not in capsys.readouterr().err
    assert open_verifier(Verify(reference=str(saved), **option)) is verifier  # type: ignore[arg-type]
    assert f"not used: {next(iter(option))}; {saved} is calibrated" in capsys.readouterr().err
