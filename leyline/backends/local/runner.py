"""Forward passes: prefill in page-aligned chunks, decode one token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from leyline.backends.local.attention import engaged
from leyline.backends.local.families import KvLayout, Refusal, inspect_model
from leyline.backends.local.kv import KvShape, SequenceKV
from leyline.backends.local.rotary import RotaryTable, StillTable, rotate
from leyline.directives import Fallback

if TYPE_CHECKING:
    from transformers import PreTrainedModel


PROBE_SHIFT = 7
PROBE_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}


class Splicer:
    """Runs a supported model over `SequenceKV`. rotate: False moves keys without turning them, as a control."""

    def __init__(self, model: PreTrainedModel, layout: KvLayout, *, rotate: bool = True) -> None:
        self.model = model
        self.layout = layout
        self.device = next(model.parameters()).device
        self.table = RotaryTable(model.model.rotary_emb, self.device)
        self.shape = self._probe()
        if not rotate:
            self.table = StillTable(model.model.rotary_emb, self.device)

    def new_kv(self, capacity: int) -> SequenceKV:
        """An empty sequence with room for `capacity` tokens."""
        return SequenceKV(self.shape, capacity)

    @contextmanager
    def session(self) -> Iterator[None]:
        """All forwards run inside this block."""
        with torch.inference_mode(), engaged(self.model):
            yield

    def forward(self, kv: SequenceKV, ids: Sequence[int]) -> Tensor:
        """Compute `ids` behind what `kv` holds. Returns the hidden states (1, len(ids), hidden); `kv` has grown."""
        start, count = kv.length, len(ids)
        kv.reserve(start + count)
        tokens = torch.tensor([list(ids)], device=self.device)
        positions = torch.arange(start, start + count, device=self.device)[None]
        out = self.model.model(input_ids=tokens, position_ids=positions, past_key_values=kv, use_cache=True)
        kv.advance(count)
        hidden: Tensor = out.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits (vocabulary,) behind the last token of `hidden` (1, n, hidden), in fp32."""
        scores: Tensor = self.model.lm_head(hidden[:, -1])[0]
        return scores.float()

    def _probe(self) -> KvShape:
        """Learn the cache's shape and check on the model itself that its first layer turns keys as the layout says."""
        record = _Recorder()
        with self.session():
            for position in (0, PROBE_SHIFT):
                self.model.model(
                    input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device),
                    position_ids=torch.tensor([[position]], device=self.device),
                    past_key_values=record,
                    use_cache=True,
                )
            old = torch.zeros(1, dtype=torch.long, device=self.device)
            cos, sin = self.table.between(old, old + PROBE_SHIFT)
            layers = len(record.seen) // 2
            at_zero, moved = record.seen[0], record.seen[layers]
            which = 0 if self.layout.rotated == "keys" else 1
            turned = rotate(at_zero[which][0], cos, sin, self.layout.pairing).float()
            error = (turned - moved[which][0].float()).norm() / moved[which].float().norm()
            still = (at_zero[1 - which].float() - moved[1 - which].float()).norm() / moved[1 - which].float().norm()
        key, value = at_zero
        tolerance = PROBE_TOLERANCE.get(key.dtype, 0.0)
        if not (error <= tolerance and still <= tolerance):
            raise ProbeError(f"turning a key by {PROBE_SHIFT} positions is off by {float(error):.1e} on this model")
        return KvShape(layers, (key.shape[1], key.shape[3]), (value.shape[1], value.shape[3]), key.dtype, self.device)


class ProbeError(Exception):
    """The model does not cache what its family should."""


class _Recorder:
    """A cache that keeps nothing but what a single-token forward would store."""

    is_compileable = False

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        self.seen.append((key.clone(), value.clone()))
        return key, value


def build_runner(model: object, *, rotate: bool = True) -> Splicer | Refusal:
    """A splicing runner for `model`, or why there is none."""
    layout = inspect_model(model)
    if isinstance(layout, Refusal):
        return layout
    try:
        return Splicer(model, layout, rotate=rotate)
    except ProbeError as error:
        return Refusal(Fallback.UNSUPPORTED_ROPE, str(error))


class Decoder(Protocol):
    """Something that holds a prompt and is fed one token at a time."""

    def feed(self, token: int) -> Tensor:
        """Append a token. Returns the next logits (vocabulary,)."""


class SplicerDecoder:
    """Decoding behind a prefilled `SequenceKV`."""

    def __init__(self, runner: Splicer, kv: SequenceKV) -> None:
        self._runner = runner
        self._kv = kv

    def feed(self, token: int) -> Tensor:
        """Append a token. Returns the next logits (vocabulary,)."""
        return self._runner.logits(self._runner.forward(self._kv, [token]))


class PlainDecoder:
    """Any transformers causal LM, with its own cache, for one request: the honest path of refused models."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache: object = None
        self._device = next(model.parameters()).device

    def prefill(self, ids: Sequence[int]) -> Tensor:
        """Compute the whole prompt. Returns the next logits (vocabulary,)."""
        return self._step(list(ids))

    def feed(self, token: int) -> Tensor:
        """Append a token. Returns the next logits (vocabulary,)."""
        return self._step([token])

    def _step(self, ids: list[int]) -> Tensor:
        tokens = torch.tensor([ids], device=self._device)
        with torch.inference_mode():
            out = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        scores: Tensor = out.logits[0, -1].float()
        return scores
