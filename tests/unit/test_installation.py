"""The command that installs an extra works where it is printed: in a checkout, for a wheel, for an address, from an index."""

import json
import sys
from importlib import metadata

import pytest

from unalike import installation
from unalike.errors import missing_extra


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    package = tmp_path / "my code" / "src" / "unalike"
    package.mkdir(parents=True)
    (tmp_path / "my code" / "pyproject.toml").write_text("")
    monkeypatch.setattr(installation, "_PACKAGE", package)
    monkeypatch.setattr(installation, "_pip", lambda: "pip")
    return tmp_path / "my code"


def test_a_checkout_is_installed_from_with_its_pins(checkout):
    assert installation.install_command("vision") == f"pip install -e '{checkout}[vision]'"
    assert installation.upgrade_command() == f"git -C '{checkout}' pull"
    (checkout / "constraints.txt").write_text("")
    assert installation.install_command("train,demo") == (
        f"pip install -c '{checkout}/constraints.txt' -e '{checkout}[train,demo]'"
    )
    assert str(missing_extra("cv2", "vision")).endswith(installation.install_command("vision"))


@pytest.mark.parametrize(
    "record, expected",
    [
        (None, "'unalike[vision]'"),
        ({"url": "file:///gone/unalike-1-py3-none-any.whl"}, "'unalike[vision]'"),
        ({"url": "https://example.org/u.git", "vcs_info": {"vcs": "git"}},
         "'unalike[vision] @ git+https://example.org/u.git'"),
    ],
)  # fmt: skip
def test_a_package_is_installed_from_where_it_came(checkout, monkeypatch, record, expected):
    class Distribution:
        def read_text(self, name):
            return json.dumps(record) if record and name == "direct_url.json" else None

    (checkout / "pyproject.toml").unlink()
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert installation.install_command("vision") == f"pip install {expected}"
    assert installation.upgrade_command() == "pip install -U unalike"


def test_a_wheel_that_still_lies_there_is_named(checkout, tmp_path, monkeypatch):
    (checkout / "pyproject.toml").unlink()
    wheel = tmp_path / "unalike-1-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setattr(installation, "_recorded_url", lambda: f"file://{wheel}")
    assert installation.install_command("vision") == f"pip install '{wheel}[vision]'"


def test_the_python_of_an_environment_that_is_not_active_is_named(tmp_path, monkeypatch):
    assert installation.install_command("vision").split(" install ")[0] in ("pip", f"{sys.executable} -m pip")
    monkeypatch.setattr(installation.shutil, "which", lambda name: str(tmp_path / "pip"))
    assert installation._pip() == f"{sys.executable} -m pip"
    monkeypatch.setattr(installation.sys, "executable", str(tmp_path / "python"))
    assert installation._pip() == "pip"
