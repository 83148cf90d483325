"""A tiny model at real scale: with weights of 1e-3 a wrong cache would give the right answer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from leyline.directives import Message
from leyline.evals.replay.traces import Recording

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 24,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete model directory with a byte-level tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models
    from tokenizers.pre_tokenizers import ByteLevel

    path = tmp_path_factory.mktemp("tiny-random")
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=320, max_position_embeddings=2048, eos_token_id=259, **SIZES)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() >= 2:
                weight.normal_(0, 1.0 if "embed" in name else 1.6 / weight.shape[-1] ** 0.5)
    model.save_pretrained(path)
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture
def backend(folder: Path) -> Any:
    from leyline.backends.local import LocalBackend

    return LocalBackend(folder, page_size=16)


@pytest.fixture
def trajectory() -> Recording:
    draw = random.Random(4)

    def text(most: int, least: int = 8) -> str:
        return "".join(draw.choice("abcdefgh \n") for _ in range(draw.randint(least, most)))

    messages: list[Message] = [{"role": "system", "content": text(20)}, {"role": "user", "content": text(40)}]
    for _ in range(5):
        messages.append({"role": "assistant", "content": text(12)})
        messages.append({"role": "user", "content": text(160, 100)})
    return Recording("talk", messages)
