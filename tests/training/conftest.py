"""`training` lies beside the package, so the repository's root goes on the path; and two untrained small models."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from training import checkpoint  # noqa: E402
from training.models import SHAPES, TinyLM  # noqa: E402

TOKENIZER = ROOT / "leyline" / "models" / "shared"


@pytest.fixture(scope="session", params=["tiny-mla", "tiny-gqa"])
def small_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of each kind: three layers with random weights in fp32, and its state under .weights."""
    torch.manual_seed(5)
    shape = replace(SHAPES[request.param], layers=3, hidden=96, ff=160, latent=48, positions=2048)
    model = TinyLM(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint.export(folder, shape, model.state_dict(), TOKENIZER, torch.float32)
    return folder
