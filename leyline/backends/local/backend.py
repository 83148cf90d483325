"""The local backend: a transformers causal LM in this process, with a prefix cache that can be edited."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leyline.backends.acknowledge import refusal
from leyline.backends.contract import (
    BackendError,
    Capabilities,
    ContextOverflowError,
    Turn,
    TurnInput,
)
from leyline.backends.local.answer import Generated, answered, generate, spliced_receipt, unspliced_receipt
from leyline.backends.local.execution import Prefilled, carry_out
from leyline.backends.local.families import Refusal
from leyline.backends.local.load import accelerator, load_model, stop_tokens
from leyline.backends.local.prefix_cache import CachedSequence, PrefixCache
from leyline.backends.local.reuse import ReusePlan, Rules, honest_plan, plan_turn
from leyline.backends.local.runner import Decoder, PlainDecoder, Splicer, SplicerDecoder, build_runner
from leyline.backends.local.sampling import Sampler
from leyline.backends.memory import SessionMemory, remember_turn, with_found
from leyline.directives import Costs, Fallback, Message, Mode, Receipt
from leyline.rendering.render import Renderer
from leyline.rendering.textstream import TextStream

CACHE_BYTES = 2**30
CACHE_TOKENS = 65536


class LocalBackend:
    """Serves one model in process; see docs/local.md.

    model: a model directory, or a loaded transformers causal LM (then `renderer` is needed to chat by messages).
    device, dtype: as of `load_model`; ignored for a loaded model.
    page_size: prefill runs in chunks cut at its multiples. Larger is faster to prefill and coarser to reuse.
    max_cached_tokens: over all cached sequences; None takes 65,536 or what fits into 1 GiB.
    generation_limit: how often one token's KV may be moved before it is prefilled again, 0 to 254.
    reuse_generated: False prefills generated tokens again in the next turn, which makes every undirected answer equal
        to a cold one bit for bit.
    secret: keys the lineage names.
    threads: processor threads of torch, in the whole process; None leaves them as they are.
    rotate: False moves keys without turning them to their new positions: wrong on purpose, as an eval's control.
    costs: of this model on this machine, for AUTO; None begins with a guess. Every turn's time corrects them.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Any,
        *,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        renderer: Renderer | None = None,
        page_size: int = 64,
        max_cached_tokens: int | None = None,
        generation_limit: int = 8,
        reuse_generated: bool = True,
        secret: bytes = b"leyline-local",
        threads: int | None = None,
        rotate: bool = True,
        costs: Costs | None = None,
    ) -> None:
        if page_size < 1:
            raise BackendError(f"page_size {page_size} must be at least 1")
        if not 0 <= generation_limit <= 254:
            raise BackendError(f"generation_limit {generation_limit} must be between 0 and 254")
        if threads is not None:
            if threads < 1:
                raise BackendError(f"threads {threads} must be at least 1")
            torch.set_num_threads(threads)
        self._renderer = renderer
        if isinstance(model, str | os.PathLike):
            self._name = Path(model).resolve().name
            self._model = load_model(model, device=device, dtype=dtype)
            self._renderer = renderer or Renderer.from_dir(model)
        else:
            self._name = type(model).__name__
            self._model = model.eval()
        self._runner = build_runner(self._model, rotate=rotate)
        if not rotate and isinstance(self._runner, Refusal):
            raise BackendError(f"rotate=False needs a model that can be spliced: {self._runner.detail}")
        each = self._runner.shape.bytes_per_token if isinstance(self._runner, Splicer) else 1
        # A page is a forward pass here, and so is each hole.
        costs = costs or Costs(forward=2e-3, hole=2e-3, byte=1e-9, token_bytes=each, chunk=page_size)
        self._rules = Rules(page_size, generation_limit, reuse_generated, secret, costs)
        if max_cached_tokens is None:
            max_cached_tokens = max(2048, min(CACHE_TOKENS, CACHE_BYTES // each))
        self.cache = PrefixCache(max_cached_tokens)
        self._memory = SessionMemory()
        self._stops = stop_tokens(self._model, self._renderer.eos_token_id if self._renderer else None)
        self._lock = threading.RLock()

    @property
    def renderer(self) -> Renderer | None:
        """Renders messages to the tokens of this model."""
        return self._renderer

    @property
    def max_context(self) -> int:
        """Tokens of prompt and completion together."""
        return int(self._model.config.max_position_embeddings)

    def capabilities(self) -> Capabilities:
        """What this model allows; `reason` says why it cannot be spliced."""
        refusal = self._runner if isinstance(self._runner, Refusal) else None
        return Capabilities(
            name="local",
            model=self._name,
            splice=refusal is None,
            tokens=True,
            max_context=self.max_context,
            reason=None if refusal is None else f"{refusal.reason}: {refusal.detail}",
            device=accelerator(self._model),
        )

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        """Serve a turn. Raises `ContextOverflowError` and `BackendError`, never for a directive."""
        prompt = self._prompt(messages, tools, session)
        room = min(session.sampling.max_tokens, self.max_context - len(prompt))
        with self._lock:
            if isinstance(self._runner, Refusal):
                return self._plain_turn(self._runner, prompt, session, room)
            session, found = with_found(self._memory, session, prompt)
            with self._runner.session():
                done, plan = self._prefill(self._runner, prompt, session, room)
                receipt = spliced_receipt(plan, done, len(prompt), session)
                assert done.logits is not None
                decoder = SplicerDecoder(self._runner, done.sequence.kv)
                fed: list[int] = []
                try:
                    out = self._generate(decoder, done.logits, session, room, fed)
                finally:
                    self._record_decoded(done.sequence, fed)
            receipt = remember_turn(self._memory, session, found, (*prompt, *fed), receipt)
            timings = {"prefill": done.seconds - done.splice_seconds, "splice": done.splice_seconds}
            return answered(out, receipt, timings, done.seconds, prompt)

    def prewarm(self, session: TurnInput) -> None:
        """Make the KV of `session.prompt` ahead of its turn, exactly as `chat` would, in whole pages unless `whole`.

        A script is carried out too; the turn that repeats it finds the result as a cached prefix.
        """
        if session.prompt is None or isinstance(self._runner, Refusal):
            return
        prompt = self._prompt((), None, session)
        if not session.script and not session.whole:
            prompt = prompt[: len(prompt) // self._rules.page * self._rules.page]
        if prompt:
            with self._lock, self._runner.session():
                self._prefill(self._runner, prompt, session, 0)

    def first_logits(self, session: TurnInput) -> tuple[Tensor, Receipt]:
        """Prefill as `chat` would and return the logits (vocabulary,) behind the prompt, in fp32, and the receipt."""
        prompt = self._prompt((), None, session)
        with self._lock:
            if isinstance(self._runner, Refusal):
                receipt = unspliced_receipt(self._runner, len(prompt), session)
                return PlainDecoder(self._model).prefill(prompt), receipt
            with self._runner.session():
                done, plan = self._prefill(self._runner, prompt, session, 0)
            assert done.logits is not None
            return done.logits.clone(), spliced_receipt(plan, done, len(prompt), session)

    def close(self) -> None:
        """Drop the cache."""
        with self._lock:
            self.cache.clear()
            self._memory.clear()

    def _prompt(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> tuple[int, ...]:
        if session.prompt is not None:
            prompt = session.prompt.ids
        elif self._renderer is not None:
            prompt = self._renderer.render(messages, tools).ids
        else:
            raise BackendError("the turn has no token ids and the backend no renderer; give LocalBackend a renderer")
        if not prompt:
            raise BackendError("the prompt is empty; send at least one message")
        vocabulary = self._model.get_input_embeddings().weight.shape[0]
        if min(prompt) < 0 or max(prompt) >= vocabulary:
            raise BackendError(f"the prompt holds a token id outside the vocabulary of {vocabulary}")
        if len(prompt) >= self.max_context:
            raise ContextOverflowError(
                f"the prompt has {len(prompt)} tokens and the model's context is {self.max_context}; "
                "shorten the history, for instance with a policy"
            )
        return prompt

    def _prefill(
        self, runner: Splicer, prompt: tuple[int, ...], session: TurnInput, room: int
    ) -> tuple[Prefilled, ReusePlan]:
        """Plan, carry out, and put the result into the cache. A splice that fails leaves the cache as it was."""
        tenant, page = session.tenant, self._rules.page
        plan = plan_turn(self.cache, prompt, session, self._rules)
        try:
            done = carry_out(runner, plan, prompt, tenant=tenant, page=page, room=room)
        except Exception as error:
            if not session.script:
                raise
            detail = f"{type(error).__name__}: {error}"[:300]
            plan = honest_plan(self.cache, prompt, session, self._rules, Fallback.INTERNAL_ERROR, detail)
            done = carry_out(runner, plan, prompt, tenant=tenant, page=page, room=room)
        self._learn(plan, done, len(prompt))
        self.cache.insert(done.sequence)
        return done, replace(plan, purged=self._purge(prompt, session, done.sequence))

    def _learn(self, plan: ReusePlan, done: Prefilled, length: int) -> None:
        costs = self._rules.costs.learn_prefill(plan.computed(length), done.seconds - done.splice_seconds)
        if plan.moves:
            costs = costs.learn_move(sum(m.length for m in plan.moves), done.splice_seconds)
        self._rules = replace(self._rules, costs=costs)

    def _purge(self, prompt: tuple[int, ...], session: TurnInput, keep: CachedSequence) -> int | None:
        """Evict what the forgotten spans left in the cache, if the turn asks for it and its directives hold.

        Returns the tokens evicted, or None where nothing was to be purged.
        """
        if not session.purge or session.source is None or refusal(prompt, session) is not None:
            return None
        spans = zip(session.script, session.script.removed(session.source), strict=True)
        forgotten = [(d.start, span) for d, span in spans if d.mode is Mode.FORGET]
        if not forgotten:
            return None
        return self.cache.purge(session.tenant, session.source, forgotten[0][0], [span for _, span in forgotten], keep)

    def _generate(self, decoder: Decoder, logits: Tensor, session: TurnInput, room: int, fed: list[int]) -> Generated:
        if self._renderer is None:
            raise BackendError("the backend has no renderer, so it has no tokenizer; give LocalBackend a renderer")
        stream = TextStream(self._renderer.tokenizer, session.sampling.stop, session.on_text)
        return generate(decoder, logits, Sampler(session.sampling), stream, self._stops, room, fed)

    def _record_decoded(self, sequence: CachedSequence, fed: list[int]) -> None:
        sequence.ids.extend(fed)
        sequence.move_counts.extend(bytes(len(fed)))
        sequence.kv.truncate(len(sequence.ids))
        self.cache.insert(sequence)

    def _plain_turn(self, refusal: Refusal, prompt: tuple[int, ...], session: TurnInput, room: int) -> Turn:
        """A refused model: the whole prompt is prefilled in every turn."""
        decoder = PlainDecoder(self._model)
        began = time.perf_counter()
        logits = decoder.prefill(prompt)
        seconds = time.perf_counter() - began
        out = self._generate(decoder, logits, session, room, [])
        receipt = unspliced_receipt(refusal, len(prompt), session)
        return answered(out, receipt, {"prefill": seconds, "splice": 0.0}, seconds, prompt)
