"""The independent oracle: what a server's receipt claims, done again by hand on a Hugging Face model.

It knows nothing of slots, pages, trees, chunks or marks. From the receipt it learns which tokens were kept, moved and
computed; it keeps, moves and computes the same on a `DynamicCache` and compares the next token's logprobs. Keys are
moved by a float64 rotation through a constant angle `delta * inv_freq`, where the plugin uses ratios of table rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from leyline.directives import Receipt

Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class State:
    """The tokens of a sequence and their KV: at least what the server holds for it, which may lack the last token's.

    earlier: the state that it was edited from, which the server's cache may hold as well.
    """

    tokens: list[int]
    layers: Layers = field(default_factory=list)
    earlier: State | None = None

    @property
    def length(self) -> int:
        return int(self.layers[0][0].shape[2]) if self.layers else 0


class Oracle:
    """One model. MLA models cache `(latent, rotary key)`, the rotary key interleaved; others `(key, value)`, halves."""

    def __init__(self, path: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="eager")
        self.model.to(device).eval()
        self.device = device
        self.latent = getattr(self.model.config, "kv_lora_rank", None) is not None
        self.angles = self.model.model.rotary_emb.inv_freq.detach().double().to(device)

    def clean(self, tokens: Sequence[int]) -> tuple[torch.Tensor, State]:
        """A clean prefill: logprobs `(vocabulary,)` of the next token, and the state."""
        return self._compute(State([]), list(tokens))

    def replay(
        self, source: State, prompt: Sequence[int], receipt: Receipt, first_edit: int, *, rotate: bool = True
    ) -> tuple[torch.Tensor, State]:
        """Do what `receipt` says was done for `prompt`, from the state of its source.

        Before `approximate_from` everything is computed: there, kept KV must be a clean prefill's. From there on it is
        taken from where the receipt says, which may be past the first edit (see `_holder`).
        first_edit: up to here source and prompt are equal. rotate: False gives the wrong answer on purpose.
        """
        prompt = list(prompt)
        assert prompt[:first_edit] == source.tokens[:first_edit], "this is not the prompt's source"
        if receipt.approximate_from is None:
            assert not receipt.splices
            return self.clean(prompt)
        first = receipt.splices[0].start if receipt.splices else len(prompt) - 1
        holder, kept = _holder(source, prompt[: min(receipt.prefix_tokens, first)])
        state = State([])
        if kept > receipt.approximate_from:
            if receipt.approximate_from:
                _, state = self.clean(prompt[: receipt.approximate_from])
            layers = _cut(holder.layers, receipt.approximate_from, kept)
            state = State(prompt[:kept], _joined(state.layers, layers))
        for splice in receipt.splices:
            if splice.start > state.length:
                _, state = self._compute(state, prompt[state.length : splice.start])
            start, end = state.length, splice.end
            moved = self._moved(source.layers, start - splice.delta, end - splice.delta, splice.delta * rotate)
            layers = _joined(state.layers, moved)
            state = State(prompt[:end], layers)
        logprobs, state = self._compute(state, prompt[state.length :])
        state.earlier = source
        return logprobs, state

    def extend(self, state: State, tokens: Sequence[int]) -> State:
        """The state after generating `tokens`.

        Also of the last one: with the overlap schedule SGLang 0.5.16 has launched one more decode step by the time it
        sees the end, and keeps that token's KV too. Where it does not, no receipt reaches so far.
        """
        after = self._compute(state, list(tokens))[1]
        after.earlier = state.earlier
        return after

    @torch.no_grad()
    def _compute(self, state: State, tokens: list[int]) -> tuple[torch.Tensor, State]:
        cache = DynamicCache()
        for index, (first, second) in enumerate(state.layers):
            cache.update(first, second, index)
        positions = torch.arange(state.length, state.length + len(tokens), device=self.device)
        ids = torch.tensor([tokens], device=self.device)
        out = self.model(
            input_ids=ids,
            past_key_values=cache,
            use_cache=True,
            position_ids=positions[None],
            logits_to_keep=1,
        )
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        state = State([*state.tokens[: state.length], *tokens], layers)
        return torch.log_softmax(out.logits[0, -1].float(), -1), state

    def _moved(self, layers: Layers, start: int, end: int, delta: int) -> Layers:
        out = []
        for first, second in _cut(layers, start, end):
            out.append((first, self._rotate(second, delta)) if self.latent else (self._rotate(first, delta), second))
        return out

    def _rotate(self, keys: torch.Tensor, delta: int) -> torch.Tensor:
        if delta == 0:
            return keys
        cos, sin = (delta * self.angles).cos(), (delta * self.angles).sin()
        x, width = keys.double(), 2 * len(self.angles)
        out = x.clone()
        if self.latent:
            a, b = x[..., 0:width:2], x[..., 1:width:2]
            out[..., 0:width:2], out[..., 1:width:2] = a * cos - b * sin, b * cos + a * sin
        else:
            a, b = x[..., : width // 2], x[..., width // 2 : width]
            out[..., : width // 2], out[..., width // 2 : width] = a * cos - b * sin, b * cos + a * sin
        return out.to(keys.dtype)


def _holder(source: State, tokens: list[int]) -> tuple[State, int]:
    """The state that holds the most of `tokens` from the first one on, the latest of equals, and how many it holds.

    That may reach further than the first edit: where the tokens behind it happen to equal the ones that it took away,
    the cache holds them in place, and where an edit is undone, an earlier turn's path still stands. It falls short
    of all of them where the request was retracted before its first token and then found what it had computed itself.
    """
    best, most, state = source, _common(source.tokens, tokens), source.earlier
    while state is not None:
        held = _common(state.tokens, tokens)
        if held > most:
            best, most = state, held
        state = state.earlier
    return best, most


def _common(a: list[int], b: list[int]) -> int:
    """How many tokens `a` and `b` share from the first one on."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _cut(layers: Layers, start: int, end: int) -> Layers:
    return [(first[:, :, start:end], second[:, :, start:end]) for first, second in layers]


def _joined(before: Layers, behind: Layers) -> Layers:
    if not before:
        return behind
    return [(torch.cat((a, c), 2), torch.cat((b, d), 2)) for (a, b), (c, d) in zip(before, behind, strict=True)]


def first_logprobs(answer: dict[str, Any], vocabulary: int) -> torch.Tensor:
    """The logprobs of the first generated token from a `/generate` answer, `(vocabulary,)`, NaN where not sent."""
    out = torch.full((vocabulary,), float("nan"))
    for value, token, _ in answer["meta_info"]["output_top_logprobs"][0]:
        out[token] = value
    return out


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two logprob vectors where both are known."""
    difference = (a.cpu() - b.cpu()).abs()
    known = ~torch.isnan(difference)
    assert bool(known.any())
    return float(difference[known].max())
