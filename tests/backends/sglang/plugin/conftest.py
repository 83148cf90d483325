"""The fixture `servers`, and the path to the modules that the tests of this folder share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sgl_rig import Servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    for name in ("sglang", "leyline_torch_cpu"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; run `make sglang-cpu`")
    servers = Servers(tmp_path_factory.mktemp("sglang"))
    yield servers
    servers.stop()
