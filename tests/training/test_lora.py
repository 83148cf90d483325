"""The LoRA of a pretrained model: it starts as the model, learns, and merges into what it computes."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from training import lora  # noqa: E402
from training.data import TOKENIZER  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    shutil.copyfile(TOKENIZER, tmp_path / "model" / "tokenizer.json")
    return tmp_path / "model"


def load(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_it_starts_as_the_model_and_trains_the_updates_alone(folder: Path) -> None:
    ids = torch.arange(1, 30)[None]
    model = load(folder)
    before = model(input_ids=ids).logits
    layers = lora.adapt(model, rank=4)
    assert len(layers) == 2 * 7
    torch.testing.assert_close(model(input_ids=ids).logits, before)
    assert {n.rsplit(".", 1)[1] for n, p in model.named_parameters() if p.requires_grad} == {"up", "down"}


def test_a_run_learns_and_merges_into_what_it_computes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = next(lora.stream(TOKENIZER, lora.FIRST_SEED, 1500))
    monkeypatch.setattr(lora, "stream", lambda *_: itertools.repeat(document))
    monkeypatch.setattr(lora, "WARM_UP", 1)
    out = tmp_path / "out"
    options = {"model": str(folder), "out": str(out), "seconds": 60.0, "steps": 6, "batch": 1, "length": 1500}
    options |= {"rank": 8, "peak": 0.05, "first": lora.FIRST_SEED, "device": "cpu"}
    lora.train(SimpleNamespace(**options))  # type: ignore[arg-type]
    losses = [float(line.split(",")[3]) for line in (out / "curve.csv").read_text().splitlines()]
    assert len(losses) == 6
    assert losses[-1] < losses[0] - 0.05
    model = load(folder)
    layers = lora.adapt(model, rank=8)
    assert lora.resume(layers, out) == json.loads((out / "progress.json").read_text())["next_seed"] > lora.FIRST_SEED
    ids = torch.arange(1, 30)[None]
    merged = load(out / "merged")
    torch.testing.assert_close(merged(input_ids=ids).logits, model(input_ids=ids).logits, atol=2e-2, rtol=2e-2)
    assert not torch.allclose(merged(input_ids=ids).logits, load(folder)(input_ids=ids).logits, atol=2e-2)
