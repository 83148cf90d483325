"""A LoRA of a pretrained model on the suite's episodes: the same documents as the tiny agents', another model.

python -m training.lora smollm2 --out runs/lora --seconds 1500
leyline run --suite micro --tasks 5 --model runs/lora/merged

Low-rank updates of every linear layer (arXiv 2106.09685) are trained, the rest is frozen. One document at a time,
whole, so that no attention mask is needed; `--batch` of them make a step. Run again with the same --out, it goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.data import LENGTH, Encoder, encoded
from training.packing import ANSWER, TEXT, Encoded

RANK, ALPHA = 12, 24.0  # of SmolLM2-135M: 3.7 million parameters, 7.3 MB in bf16
TEXT_WEIGHT = 0.1  # of tool text, beside 1 of an answer
FIRST_SEED = 120_000_000  # behind all seeds that the tiny agents have seen
WARM_UP = 30


class LoRA(nn.Module):
    """A frozen linear layer and its update: y = W x + (alpha / rank) B A x; B starts at zero."""

    def __init__(self, base: nn.Linear, rank: int = RANK, alpha: float = ALPHA) -> None:
        super().__init__()
        self.base, self.scale = base, alpha / rank
        weight = base.weight
        self.down = nn.Parameter(torch.randn(rank, base.in_features, device=weight.device) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=weight.device))

    def forward(self, x: Tensor) -> Tensor:
        update = nn.functional.linear(nn.functional.linear(x, self.down.to(x.dtype)), self.up.to(x.dtype))
        return cast(Tensor, self.base(x)) + self.scale * update

    def merged(self) -> Tensor:
        """The weight that does the same by itself, in fp32."""
        return self.base.weight.float() + self.scale * (self.up @ self.down)


def adapt(model: nn.Module, rank: int = RANK) -> dict[str, LoRA]:
    """Freeze `model` and put a LoRA in the place of each linear layer of its blocks. Returns them by name."""
    model.requires_grad_(False)
    linears = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".layers." in f".{n}"]
    found = {}
    for name, linear in linears:
        parent, _, own = name.rpartition(".")
        found[name] = LoRA(linear, rank)
        setattr(model.get_submodule(parent), own, found[name])
    return found


def loss_of(model: nn.Module, document: Encoded, device: str) -> Tensor:
    """Mean cross entropy over what is to be learned of a document, answers before tool text."""
    ids = torch.tensor([list(document[0])], device=device)
    codes = torch.tensor(list(document[1]), device=device)[1:]
    weights = (codes == ANSWER).float() + TEXT_WEIGHT * (codes == TEXT).float()
    learned = weights.nonzero()[:, 0]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[0]  # type: ignore[operator, union-attr]
    logits = model.lm_head(hidden[learned]).float()  # type: ignore[operator]
    losses = nn.functional.cross_entropy(logits, ids[0, learned + 1], reduction="none")
    return (losses * weights[learned]).sum() / weights.sum()


def stream(tokenizer: Path, first: int, length: int) -> Iterator[Encoded]:
    """Documents that fit into `length` tokens and teach something, from seed `first` on."""
    for document in encoded(itertools.count(first), Encoder(tokenizer)):
        if len(document[0]) <= length and ANSWER in document[1]:
            yield document


def rate(step: int, done: float, peak: float) -> float:
    """Linear warm-up, then linear to 5 % of `peak` over the run. done: share of the run's time or steps."""
    return peak * min(1.0, (step + 1) / WARM_UP) * max(0.05, 1 - done)


def train(options: argparse.Namespace) -> None:
    """Train until the time or the steps are up; write the adapter, the curve and a merged model folder."""
    from transformers import AutoModelForCausalLM

    from leyline.models import model_folder

    folder, out, began = model_folder(options.model), Path(options.out), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(options.device)
    layers = adapt(model, options.rank)
    first = resume(layers, out) if (out / "adapter.safetensors").is_file() else options.first
    parameters = [p for layer in layers.values() for p in (layer.down, layer.up)]
    optimiser = torch.optim.AdamW(parameters, lr=options.peak, weight_decay=0.0, betas=(0.9, 0.98))
    documents = stream(folder / "tokenizer.json", first, options.length)
    seen = 0
    with (out / "curve.csv").open("a", encoding="utf-8") as curve:
        for step in range(options.steps):
            spent = time.monotonic() - began
            if spent > options.seconds:
                break
            for group in optimiser.param_groups:
                group["lr"] = rate(step, max(spent / options.seconds, step / options.steps), options.peak)
            total = 0.0
            for document in itertools.islice(documents, options.batch):
                with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.device != "cpu"):
                    loss = loss_of(model, document, options.device) / options.batch
                loss.backward()
                total, seen = total + float(loss.detach()), seen + len(document[0])
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            curve.write(f"{step},{time.monotonic() - began:.1f},{seen},{total:.4f}\n")
            curve.flush()
            print(f"step {step}: {total:.4f}, {seen:,} tokens, {time.monotonic() - began:.0f} s", flush=True)
    # Seeds give several documents, or none, so that going on begins well behind those that were read.
    save(layers, out, first + 2 * options.batch * options.steps)
    merge(layers, folder, out / "merged")


def save(layers: dict[str, LoRA], out: Path, following: int) -> None:
    """The adapter in bf16, and where the documents go on."""
    tensors = {f"{n}.{part}": getattr(la, part).detach().bfloat16().cpu() for n, la in layers.items() for part in PARTS}
    save_file(tensors, out / "adapter.safetensors", metadata={"format": "pt", "alpha": str(ALPHA)})
    (out / "progress.json").write_text(json.dumps({"next_seed": following}) + "\n", encoding="utf-8")


PARTS = ("down", "up")


def resume(layers: dict[str, LoRA], out: Path) -> int:
    """Load the adapter; returns the seed to go on from. The optimiser starts anew."""
    tensors = load_file(out / "adapter.safetensors")
    with torch.no_grad():
        for name, layer in layers.items():
            for part in PARTS:
                getattr(layer, part).copy_(tensors[f"{name}.{part}"])
    return int(json.loads((out / "progress.json").read_text(encoding="utf-8"))["next_seed"])


def merge(layers: dict[str, LoRA], folder: Path, target: Path) -> None:
    """A model folder with the updates in its weights, in their own type, for every backend."""
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, target / file.name)
    tensors = load_file(folder / "model.safetensors")
    for name, layer in layers.items():
        known = tensors[f"{name}.weight"]
        tensors[f"{name}.weight"] = layer.merged().detach().cpu().to(known.dtype)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model by name, or its folder")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=16, help="documents a step")
    parser.add_argument("--length", type=int, default=LENGTH, help="longer documents are left out")
    parser.add_argument("--rank", type=int, default=RANK)
    parser.add_argument("--peak", type=float, default=1e-3, help="rate of learning")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="seed of the first document")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
