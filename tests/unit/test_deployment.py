"""The deployment files: they parse, and what they set are options of the service. They were not run: no Docker, no cluster here."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from unalike.serve.routes.health import health_router
from unalike.spec.serve import ENVIRONMENT_PREFIX, Serve

FOLDER = ROOT / "deployment"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_variables_are_options_of_the_service(path: Any) -> None:
    names = re.findall(rf"{ENVIRONMENT_PREFIX}([A-Z_]+)", path.read_text(encoding="utf-8"))
    assert names, "a file that sets nothing"
    assert {name.lower() for name in names} <= set(Serve.model_fields)


def test_the_image_runs_the_service_without_rights_and_without_torch() -> None:
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER 10001$", lines, re.MULTILINE) and 'ENTRYPOINT ["unalike", "serve"]' in lines
    (extras,) = re.findall(r"'\.\[([a-z,]+)\]'", lines)
    assert "serve" in extras.split(",") and not {"train", "all", "dev"} & set(extras.split(","))
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{extra} = \[", pyproject, re.MULTILINE) for extra in extras.split(","))


def test_compose_runs_two_replicas_over_one_database() -> None:
    services = documents("compose.yaml")[0]["services"]
    replica = services["replica"]
    assert replica["deploy"]["replicas"] == 2 and replica["read_only"] is True
    assert replica["environment"][ENVIRONMENT_PREFIX + "STORE"].startswith("postgresql://")
    assert "database" in services


def test_kubernetes_probes_are_endpoints_of_the_service() -> None:
    deployment, service = documents("kubernetes.yaml")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    probes = {container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}

    class Services:
        """No service is needed to list the addresses."""

    assert probes <= {route.path for route in health_router(Services()).routes}  # type: ignore[arg-type, attr-defined]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_unit_starts_the_service() -> None:
    lines = dict(
        line.split("=", 1)
        for line in (FOLDER / "unalike.service").read_text(encoding="utf-8").splitlines()
        if "=" in line
    )
    words = shlex.split(lines["ExecStart"])
    assert words[0].endswith("/unalike") and words[1] == "serve"
    assert lines["NoNewPrivileges"] == "true" and lines["User"] != "root"
