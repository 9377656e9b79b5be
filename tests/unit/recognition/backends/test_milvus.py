"""A gallery on a server of Milvus Lite: the laws of a gallery, and what is special to Milvus."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.milvus import milvus_server
from unalike.recognition.backends.conformance import LAWS
from unalike.recognition.backends.conformance_copies import COPY_LAWS
from unalike.recognition.backends.conformance_networks import NETWORK_LAWS
from unalike.recognition.backends.conformance_processes import PROCESS_LAWS

pytestmark = pytest.mark.slow
pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")


@pytest.fixture
def address(request: pytest.FixtureRequest) -> str:
    return f"{milvus_server()}?gallery={request.node.name.replace('[', '.').replace(']', '')}"


@pytest.mark.parametrize("law", [*LAWS, *PROCESS_LAWS, *NETWORK_LAWS, *COPY_LAWS], ids=lambda law: law.__name__)
def test_milvus_keeps_the_law(law: Callable[[str], None], address: str) -> None:
    law(address)
