"""Which SGLang is supported."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from leyline.backends.sglang.plugin.entry import _refuse
from leyline.backends.sglang.versions import SUPPORTED, UnsupportedVersionError, adapter_for, adapter_name


@pytest.mark.parametrize(
    "version",
    ["0.5.15", "0.5.16rc1", "0.5.160", "0.5.23.dev1", "0.5.18", "0.5.22.post1", "0.5.99", "0.6.0", "1.0", "main", ""],
)
def test_another_version_is_refused_with_the_supported_range(version: str) -> None:
    with pytest.raises(UnsupportedVersionError, match="not supported") as error:
        adapter_for(version)
    assert SUPPORTED.replace(" and ", " or ") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_of_another_version_ends_at_start() -> None:
    """The factory that is registered for it raises when SGLang builds its cache."""
    factory = _refuse(UnsupportedVersionError("SGLang 0.5.24 is not supported"))
    with pytest.raises(UnsupportedVersionError, match="not supported"):
        factory(None)


def test_the_extra_installs_only_releases_that_work() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((Path(__file__).resolve().parents[4] / "pyproject.toml").read_text())["project"]
    (requirement,) = project["optional-dependencies"]["sglang"]
    admitted = requirements.Requirement(requirement).specifier
    releases = [f"0.5.{patch}{post}" for patch in range(10, 30) for post in ("", ".post1")]
    for release in [*releases, "0.4.9", "0.6.0"]:
        try:
            adapter_name(release)
            works = True
        except UnsupportedVersionError:
            works = False
        assert (release in admitted) is works, release
