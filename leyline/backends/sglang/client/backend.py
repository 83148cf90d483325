"""The client of an SGLang server: exact tokens over `/generate`, directives in `custom_params`, receipts back.

Needs neither torch nor sglang. Messages are rendered here, with the model's own template and tokenizer, because a
directive counts in tokens.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx

from leyline.backends.contract import (
    BackendError,
    Capabilities,
    ContextOverflowError,
    Held,
    Purged,
    Turn,
    TurnInput,
    Usage,
)
from leyline.backends.http.affinity import affinity_headers
from leyline.backends.sglang import client
from leyline.backends.sglang.client.facts import ServerFacts
from leyline.backends.sglang.client.generated import Generation
from leyline.backends.sglang.client.lost import check_tenants, stripped, told_of_miss
from leyline.backends.sglang.client.purge import purge_replicas
from leyline.backends.sglang.client.requests import generate_body, wire_request
from leyline.backends.sglang.client.server import Transport
from leyline.directives import Fallback, JsonMapping, LeylineError, Message, Receipt, WireError
from leyline.rendering.render import Renderer
from leyline.rendering.toolcalls import parse_output

STREAM_INTERVAL = 64
"""Tokens between two pieces of an answer that nobody watches; the first token always comes at once."""

SERVER_REFUSALS = frozenset(
    {
        Fallback.UNSUPPORTED_MODEL,
        Fallback.UNSUPPORTED_ROPE,
        Fallback.UNSUPPORTED_KV_DTYPE,
        Fallback.UNSUPPORTED_FEATURE,
    }
)


class SGLangBackend:
    """Serves turns through an SGLang server at `base_url`. Connects at once. Raises `BackendError`.

    tokenizer: the folder with the model's tokenizer and chat template; None takes the one that the server names, a
        folder on this machine or a model of the Hugging Face hub (from its local cache, else downloaded).
    facts_url: a replica to ask what is served, behind a router that says it nowhere (see `ServerFacts.ask`).
    kv_hints: directives travel in the server's own field `kv_hints` (SGLang 0.5.23), not in `custom_params`.
    api_key: the server's `--api-key`. timeout, retries, http_client: as of `Transport`.

    Without the plugin (a server started without `--radix-cache-backend leyline`) turns are served all the same, and
    receipts say that nothing was spliced.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:30000",
        *,
        tokenizer: str | Path | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        retries: int = 3,
        http_client: httpx.Client | None = None,
        facts_url: str | None = None,
        kv_hints: bool = False,
    ) -> None:
        self._hints = kv_hints
        self._transport = Transport(
            base_url, api_key=api_key, timeout=timeout, retries=retries, http_client=http_client
        )
        self.facts = ServerFacts.ask(self._transport, facts_url)
        # Asked of the package, where a script may have put one of its own.
        self._renderer = client.find_renderer(tokenizer or self.facts.tokenizer)
        self._capabilities: Capabilities | None = None
        self._tenants_apart = False

    @property
    def renderer(self) -> Renderer:
        """Renders messages to the tokens that the server's model reads."""
        return self._renderer

    def capabilities(self) -> Capabilities:
        """What the server allows. The first call sends it a small request, to learn whether it refuses to splice."""
        if self._capabilities is None:
            reason = self._refusal()
            self._capabilities = Capabilities(
                name="sglang",
                model=self.facts.model,
                splice=reason is None,
                tokens=True,
                max_context=self.facts.max_request,
                reason=reason,
            )
        return self._capabilities

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        """Serve a turn. Raises `ContextOverflowError` and `BackendError`, never for a directive.

        The first turn of a tenant sends a few small requests, to learn whether tenants are kept apart here.
        """
        self._check_tenant(session)
        prompt = self._prompt(messages, tools, session)
        request, problem = wire_request(session, prompt)
        sampling = session.sampling
        room = sampling.max_tokens
        if self.facts.max_request is not None:
            room = min(room, self.facts.max_request - len(prompt))
        params: dict[str, object] = {
            "max_new_tokens": room,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "skip_special_tokens": False,
            "stream_interval": 1 if session.on_text is not None else STREAM_INTERVAL,
        }
        if sampling.stop:
            params["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            params["sampling_seed"] = sampling.seed
        answer = Generation(self._renderer.tokenizer, sampling.stop, session.on_text)
        body = generate_body(prompt, params, request, session.tenant, stream=True, hints=self._hints)
        self._transport.stream("/generate", body, answer.take, answer.restart, headers=self._affinity(session))
        receipt = self._receipt(answer, prompt, session, problem, told=request is not None)
        return self._turn(answer, receipt, tools)

    def prewarm(self, session: TurnInput) -> None:
        """Prefill `session.prompt`, edits included, and generate nothing. A failure is left to the turn to report.

        A turn with the same source, edits and lineage finds all of it, what was moved too; its receipt says `cached`.
        """
        if session.prompt is None or not session.prompt.ids:
            return
        params = {"max_new_tokens": 0, "temperature": 0.0}
        try:
            self._check_tenant(session)
            prompt = self._prompt((), None, session)
            request, _ = wire_request(session, prompt)
            body = generate_body(prompt, params, request, session.tenant, hints=self._hints)
            self._transport.post("/generate", body, headers=self._affinity(session))
        except BackendError:
            return

    def purge(self, sequences: Sequence[Held], *, tenant: str | None = None) -> Purged:
        """Evict sequences from the second token on, from every replica that a router names; where there is none, from
        the server. What other requests use, or share, is left to eviction.
        """
        return purge_replicas(self._transport, sequences, tenant)

    def flush(self) -> None:
        """Empty the server's cache, for everyone. Raises `BackendError` while requests run."""
        self._transport.flush()

    def close(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        self._transport.close()

    def _affinity(self, session: TurnInput) -> dict[str, str]:
        """What keeps a router on the replica that holds the session; headers of the caller's own client stay."""
        return affinity_headers(session.session_id, session.tenant, present=self._transport.headers)

    def _check_tenant(self, session: TurnInput) -> None:
        """Raise `BackendError` where a tenant's prompts would be found by others."""
        if session.tenant is not None and not self._tenants_apart:
            check_tenants(self._transport, self._renderer.encode, self.facts.max_request)
            self._tenants_apart = True

    def _refusal(self) -> str | None:
        """Why the server does not splice, or None."""
        if not self.facts.plugin:
            return f"the server runs without the plugin; start it with `leyline serve {self.facts.model}`"
        # The removed tokens are in nobody's cache, so that a server that splices says `source_mismatch` or the like.
        probe = {
            "version": "leyline/1",
            "directives": [{"start": 1, "end": 2, "removed": [2], "replacement": [], "mode": "amortize"}],
        }
        body = {
            "input_ids": [0, 1, 3],
            "extra_key": f"leyline-probe-{uuid.uuid4().hex}",
            "sampling_params": {"max_new_tokens": 1, "temperature": 0, "custom_params": {"leyline": probe}},
        }
        receipt = Receipt.from_meta_info(self._transport.post("/generate", body).get("meta_info"))
        if receipt is None:
            return f"{stripped('custom_params')}; where there is none, see the server's log"
        if receipt.fallback in SERVER_REFUSALS:
            return f"{receipt.fallback}: {receipt.detail}"
        return None

    def _prompt(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> tuple[int, ...]:
        prompt = session.prompt.ids if session.prompt is not None else self._renderer.render(messages, tools).ids
        if not prompt:
            raise BackendError("the prompt is empty; send at least one message")
        longest = self.facts.max_request
        if longest is not None and len(prompt) >= longest:
            raise ContextOverflowError(
                f"the prompt has {len(prompt)} tokens and the server takes {longest}; "
                "shorten the history, for instance with a policy"
            )
        return prompt

    def _receipt(
        self,
        answer: Generation,
        prompt: tuple[int, ...],
        session: TurnInput,
        problem: LeylineError | None,
        *,
        told: bool,
    ) -> Receipt:
        """The server's receipt; for a request without directives the same from the server's own counts.

        told: whether the request carried anything that a receipt acknowledges.
        """
        asked = len(session.script)
        cached = min(answer.count("cached_tokens"), len(prompt))
        if problem is not None:
            reason = getattr(problem, "reason", Fallback.MALFORMED)
            return Receipt(
                prompt_tokens=len(prompt),
                prefix_tokens=cached,
                spliced_tokens=0,
                prefilled_tokens=len(prompt) - cached,
                fallback=reason,
                detail=str(problem),
                directives=asked,
            )
        detail = None
        try:
            receipt = Receipt.from_meta_info(answer.meta_info)
            if receipt is not None:
                return told_of_miss(receipt, prompt, session, self.facts.page)
            if told and self.facts.plugin:
                detail = stripped("kv_hints" if self._hints else "custom_params")
            elif asked:
                detail = "the server sent no receipt: it runs without the plugin"
        except WireError as error:
            detail = f"the server's receipt cannot be read: {error}"
        plain = Receipt.plain(len(prompt), cached, directives=asked, detail=detail)
        if detail is not None:
            return replace(plain, fallback=Fallback.BACKEND_HAS_NO_SPLICE)
        return told_of_miss(plain, prompt, session, self.facts.page)

    def _turn(self, answer: Generation, receipt: Receipt, tools: Sequence[Mapping[str, object]] | None) -> Turn:
        text, ids = answer.text_and_ids()
        message = self._message(text, tools)
        finish = "tool_calls" if message.get("tool_calls") else answer.finish_reason()
        timings = {"splice": sum((splice.seconds for splice in receipt.splices), 0.0)}
        if answer.first is not None:
            timings["ttft"] = answer.first
        return Turn(
            message=message,
            usage=Usage(
                receipt.prompt_tokens, receipt.prefix_tokens + receipt.spliced_tokens, answer.count("completion_tokens")
            ),
            receipt=receipt,
            output_ids=tuple(ids),
            finish_reason=finish,
            timings=timings,
        )

    def _message(self, text: str, tools: Sequence[JsonMapping] | None) -> Message:
        """The answer with its tool calls: the common form is read here, others by the server's own parser."""
        seed = uuid.uuid4().hex
        parsed = parse_output(text, seed=seed)
        if parsed.tool_calls or not tools or self.facts.tool_parser is None:
            return parsed.message()
        asked = {"text": text, "tools": list(tools), "tool_call_parser": self.facts.tool_parser}
        found = self._transport.post("/parse_function_call", asked)
        calls = [
            {
                "id": f"call_{seed[:20]}{index:04d}",
                "type": "function",
                "function": {"name": str(call.get("name")), "arguments": str(call.get("parameters") or "{}")},
            }
            for index, call in enumerate(found.get("calls") or [])
            if isinstance(call, Mapping)
        ]
        if not calls:
            return parsed.message()
        return {"role": "assistant", "content": found.get("normal_text") or None, "tool_calls": calls}
