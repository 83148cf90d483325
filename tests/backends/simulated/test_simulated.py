"""The simulated cache against the definition, and against the local backend, which really moves KV."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

from leyline.backends.contract import BackendError, Sampling, TurnInput
from leyline.backends.simulated.backend import SimulatedBackend, answer_ids
from leyline.backends.simulated.radix import RadixCache
from leyline.backends.simulated.serve import serve
from leyline.directives import Directive, EditScript, Message, Mode, Rendered
from leyline.harness.session.session import Session
from leyline.models.find import load_renderer
from leyline.rendering.render import Renderer
from leyline.rendering.textrender import TextRenderer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


def talk(turns: int, seed: int, size: int = 60) -> list[Message]:
    """A text-only conversation: a command each turn, its output of very different length behind it."""
    draw = random.Random(seed)

    def text(length: int) -> str:
        return "".join(draw.choice("abcdefgh \n") for _ in range(length))

    messages: list[Message] = [{"role": "system", "content": text(20)}, {"role": "user", "content": text(30)}]
    for _ in range(turns):
        messages.append({"role": "assistant", "content": text(draw.randint(3, 12))})
        messages.append({"role": "user", "content": text(draw.randint(1, size))})
    return messages


def run(policy: str, mode: str, messages: Sequence[Message], cache: RadixCache, seam: int = 0) -> list[tuple[int, ...]]:
    places = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    backend = SimulatedBackend(TextRenderer(byte_tokenizer()), cache, [messages[i] for i in places], splice=True)
    session = Session(backend, policy, mode=mode, seam=seam)
    for place in places:
        session.turn(messages[:place])
    return [
        (t.receipt.prompt_tokens, t.receipt.prefix_tokens, t.receipt.spliced_tokens, t.receipt.prefilled_tokens)
        for t in session.turns
    ]


def ask(source: Sequence[int], script: EditScript, **more: Any) -> tuple[TurnInput, list[int]]:
    prompt = script.apply(source)
    return TurnInput("s", Rendered(tuple(prompt)), tuple(source), script, **more), prompt


def test_an_append_only_conversation_computes_only_what_is_new() -> None:
    messages = talk(6, seed=1)
    turns = run("keep_all", "amortize", messages, RadixCache())
    rendered = TextRenderer(byte_tokenizer())
    answer = 0
    for number, (prompt, prefix, spliced, prefilled) in enumerate(turns):
        assert spliced == 0
        assert prefix == answer
        assert prompt == prefix + prefilled
        said = answer_ids(rendered, [], messages[2 + 2 * number])
        answer = prompt + len(said)


@pytest.mark.parametrize("page", [1, 4])
@pytest.mark.parametrize("seam", [0, 3])
def test_one_edit_splices_exactly_the_segments(page: int, seam: int) -> None:
    cache, source = RadixCache(page_size=page), list(range(100, 140))
    serve(cache, TurnInput("s"), source, (), True)
    script = EditScript((Directive(8, 20, (1, 2), Mode.AMORTIZE), Directive(28, 30, (), Mode.AMORTIZE)))
    request, prompt = ask(source, script, seam=seam)
    served = serve(cache, request, prompt, (), True)
    last = len(prompt) - 1
    expected = []
    for s in script.segments(len(source), seam=seam):
        first, stop = -(-s.target_start // page) * page, min(s.target_end, last) // page * page
        if s.kind == "reuse" and first < stop:
            expected.append((first, stop, s.delta))
    assert served.prefix == 8
    assert served.runs == tuple(expected)
    assert served.approximate_from == (expected[0][0] if expected else None)
    cache.check()


def test_what_was_spliced_is_the_lineages_alone() -> None:
    cache, source = RadixCache(), list(range(100, 140))
    serve(cache, TurnInput("s"), source, (), True)
    request, prompt = ask(source, EditScript((Directive(8, 20, (1,), Mode.AMORTIZE),)))
    served = serve(cache, request, prompt, (7, 8), True)
    own = TurnInput("s", lineage=served.lineage, lineage_start=served.approximate_from)
    assert served.approximate_from == 9
    # Donors are cached under their own keys; anyone else finds the honest part only: the prefix and the replacement.
    assert serve(cache, own, [*prompt, 7, 8, 5], (), True).prefix == len(prompt) + 2
    assert serve(cache, TurnInput("other"), [*prompt, 7, 8, 5], (), True).prefix == 9


def test_nothing_behind_a_forget_is_reused() -> None:
    cache, source = RadixCache(), list(range(100, 140))
    serve(cache, TurnInput("s"), source, (), True)
    script = EditScript((Directive(4, 6, (), Mode.AMORTIZE), Directive(20, 22, (1,), Mode.FORGET)))
    request, prompt = ask(source, script)
    assert serve(cache, request, prompt, (), True).runs == ((4, 18, -2),)


def test_a_run_is_moved_as_often_as_allowed_and_then_computed() -> None:
    cache, source, move_counts = RadixCache(), list(range(100, 140)), b""
    lineage: dict[str, Any] = {}
    served = serve(cache, TurnInput("s"), source, (), True)
    for moves in range(1, 5):
        request, prompt = ask(source, EditScript((Directive(2, 3, (), Mode.AMORTIZE),)), **lineage)
        served = serve(cache, request, prompt, (), True, move_counts=served.move_counts, limit=3)
        length = len(prompt) - 1 - 2
        assert (sum(b - a for a, b, _ in served.runs), served.worn) == ((length, 0) if moves < 4 else (0, length))
        assert max(served.move_counts) == (moves if moves < 4 else 0)
        source, move_counts = prompt, served.move_counts
        lineage = {"lineage": served.lineage, "lineage_start": served.approximate_from}
    assert move_counts == bytes(len(source))


@pytest.mark.parametrize("policy", ["truncate_older_than(n=1, max_chars=8)", "keep_last(n=2)", "dedupe(min_chars=1)"])
def test_splice_never_computes_more_than_an_ordinary_cache_and_both_add_up(policy: str) -> None:
    for seed in range(4):
        messages = talk(10, seed)
        spliced = run(policy, "amortize", messages, RadixCache())
        plain = run(policy, "forget", messages, RadixCache())
        for a, b in zip(spliced, plain, strict=True):
            assert a[0] == b[0] == sum(a[1:]) == sum(b[1:])
            assert b[2] == 0
            assert a[3] <= b[3]


def test_eviction_costs_hits_and_the_tree_stays_sound() -> None:
    messages = talk(12, seed=3)
    roomy, tight = RadixCache(), RadixCache(capacity=400)
    free = run("keep_last(n=3)", "amortize", messages, roomy)
    full = run("keep_last(n=3)", "amortize", messages, tight)
    tight.check()
    assert tight.evicted > 0
    assert sum(t[3] for t in full) >= sum(t[3] for t in free)


def test_the_recording_ends() -> None:
    backend = SimulatedBackend(TextRenderer(byte_tokenizer()), RadixCache(), [], splice=True)
    with pytest.raises(BackendError, match="no further answer"):
        backend.chat([{"role": "user", "content": "x"}], None, TurnInput("s", Rendered((1, 2), ((0, 2),))))
    with pytest.raises(BackendError, match="renderer"):
        backend.chat([{"role": "user", "content": "x"}], None, TurnInput("s"))


def test_answer_tokens_are_what_the_model_would_have_generated() -> None:
    text = TextRenderer(byte_tokenizer())
    template = Renderer(byte_tokenizer(), CHATML)
    messages = talk(2, seed=5)
    for place in (2, 4):
        said = answer_ids(template, messages[:place], messages[place])
        assert template.decode(said) == messages[place]["content"]
        assert said == answer_ids(text, messages[:place], messages[place])
        prompt, following = template.render(messages[:place]).ids, template.render(messages[: place + 1]).ids
        assert following[: len(prompt) + len(said)] == prompt + said


def test_renderers_by_name(tmp_path: Any) -> None:
    byte_tokenizer().save(str(tmp_path / "tokenizer.json"))
    assert isinstance(load_renderer(tmp_path), TextRenderer)
    assert isinstance(load_renderer(tmp_path / "tokenizer.json"), TextRenderer)
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert isinstance(load_renderer(tmp_path), Renderer)
    messages = talk(3, seed=2)
    assert load_renderer(tmp_path).render(messages) == load_renderer(tmp_path / "tokenizer.json").render(messages)


@pytest.fixture(scope="module")
def model() -> Any:
    """One layer of random weights: what is counted does not depend on what they compute."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = transformers.LlamaConfig(vocab_size=320, max_position_embeddings=2048, **sizes, **heads)
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("policy", "mode", "seam"),
    [
        ("keep_all", "amortize", 0),
        ("truncate_older_than(n=1, max_chars=8)", "amortize", 0),
        ("truncate_older_than(n=1, max_chars=8)", "forget", 0),
        ("keep_last(n=2)", "amortize", 0),
        ("keep_last(n=2)", "amortize", 5),
    ],
)
def test_every_count_is_that_of_real_splices(model: Any, policy: str, mode: str, seam: int) -> None:
    """With pages of one token the local backend and the simulator reuse the same tokens, turn by turn."""
    from leyline.backends.local import LocalBackend
    from leyline.evals.replay.recorded import RecordedBackend

    messages = talk(5, seed=7, size=64)  # longer than the note that truncation leaves
    places = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    answers = [messages[i] for i in places]
    renderer = Renderer(byte_tokenizer(), CHATML)
    real = RecordedBackend(LocalBackend(model, renderer=renderer, page_size=1, generation_limit=8))
    real.begin(answers)
    simulated = SimulatedBackend(renderer, RadixCache(), answers, splice=True, generation_limit=8)
    sessions = [
        Session(b, policy, mode=mode, seam=seam, session_id="s", sampling=Sampling(max_tokens=1))
        for b in (real, simulated)
    ]
    for place in places:
        first, second = (session.turn(messages[:place]).receipt for session in sessions)
        got = (first.prompt_tokens, first.prefix_tokens, first.spliced_tokens, first.prefilled_tokens)
        assert got == (second.prompt_tokens, second.prefix_tokens, second.spliced_tokens, second.prefilled_tokens)
        assert [(s.start, s.end, s.delta) for s in first.splices] == [(s.start, s.end, s.delta) for s in second.splices]
        assert first.approximate_from == second.approximate_from
        assert first.prefix_tokens > 0 or place == places[0]
    assert (sessions[0].totals.spliced_tokens > 0) == (mode == "amortize" and policy != "keep_all")
