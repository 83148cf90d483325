"""Sessions on a real model in process: every token accounted for, and the same prompts as an honest session."""

from __future__ import annotations

import string
from typing import Any

import pytest

from leyline.backends.contract import Sampling
from leyline.directives import Message, Mode
from leyline.harness.session.session import Session
from leyline.rendering.render import Renderer

torch = pytest.importorskip("torch", reason="needs leyline-kv[local]")
transformers = pytest.importorskip("transformers", reason="needs leyline-kv[local]")

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]
LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"]
POLICY = "truncate_older_than(n=2, max_chars=40)"


@pytest.fixture(scope="module")
def backend() -> Any:
    """A random Llama that reads and writes single characters; the test counts tokens, not sense."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    from leyline.backends.local import LocalBackend

    vocabulary = {text: number for number, text in enumerate([*LETTERS, *SPECIAL, "<unk>"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=vocabulary["<|im_end|>"],
    )
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.3)
        model.lm_head.weight[len(LETTERS) :] = 0.0  # it writes letters, so that its text and its tokens are one
    renderer = Renderer(tokenizer, TEMPLATE, {"eos_token": "<|im_end|>"})
    made = LocalBackend(model, renderer=renderer, page_size=8)
    yield made
    made.close()
    torch.set_num_threads(threads)


def session(backend: Any, tenant: str, **settings: Any) -> Session:
    return Session(backend, POLICY, sampling=Sampling(max_tokens=9), tenant=tenant, **settings)


def observation(number: int) -> Message:
    return {"role": "user", "content": f"output {number}: " + string.ascii_lowercase * 6}


def play(played: Session, turns: int, *, ahead: bool = False) -> list[list[Message]]:
    """A text-only agent of a few turns; returns the unedited history of each."""
    history: list[Message] = [{"role": "system", "content": "You help."}, {"role": "user", "content": "Go."}]
    seen = []
    for number in range(turns):
        seen.append(list(history))
        history.append(played.turn(history).message)
        if ahead:
            played.prewarm(history)
        history.append(observation(number))
    return seen


@pytest.mark.parametrize("mode", [Mode.AMORTIZE, Mode.FORGET])
@pytest.mark.parametrize("seam", [0, 5])
def test_every_token_of_every_turn_is_accounted_for(backend: Any, mode: Mode, seam: int) -> None:
    played = session(backend, f"count-{mode}-{seam}", mode=mode, seam=seam)
    play(played, 6)
    for turn in played.turns:
        receipt = turn.receipt
        assert receipt.prefix_tokens + receipt.spliced_tokens + receipt.prefilled_tokens == len(turn.input_ids or ())
        assert receipt.fallback is None
    edited = [turn for turn in played.turns if turn.edits]
    assert len(edited) == 3
    assert [len(turn.script) for turn in edited] == [1, 1, 1]
    assert all((turn.receipt.spliced_tokens > 200) == (mode is Mode.AMORTIZE) for turn in edited)


def test_a_spliced_session_sends_the_prompts_of_an_honest_one(backend: Any) -> None:
    spliced = session(backend, "spliced")
    histories = play(spliced, 6)
    honest = session(backend, "honest", honest=True)
    for history, turn in zip(histories, spliced.turns, strict=True):
        answer = honest.turn(history)
        assert answer.input_ids == turn.input_ids
        assert answer.input_messages == turn.input_messages
    assert spliced.totals.spliced_tokens > 500
    assert honest.totals.spliced_tokens == 0
    assert spliced.totals.hit_rate > honest.totals.hit_rate


def test_forgetting_gives_the_answers_of_a_cold_server(backend: Any) -> None:
    forgetting = session(backend, "forget", mode=Mode.FORGET)
    histories = play(forgetting, 5)
    for number, (history, turn) in enumerate(zip(histories, forgetting.turns, strict=True)):
        cold = session(backend, f"cold-{number}")
        assert cold.turn(history).input_ids == turn.input_ids
        assert cold.turns[0].message == turn.message


def test_prewarm_leaves_only_the_new_observation_to_compute(backend: Any) -> None:
    cold, warm = session(backend, "not-ahead"), session(backend, "ahead")
    play(cold, 6)
    play(warm, 6, ahead=True)
    assert [turn.message for turn in warm.turns] == [turn.message for turn in cold.turns]
    assert [turn.input_ids for turn in warm.turns] == [turn.input_ids for turn in cold.turns]
    assert warm.totals.prefilled_tokens < cold.totals.prefilled_tokens
    for turn in warm.turns[1:]:
        assert turn.receipt.prefilled_tokens < len(observation(0)["content"]) + 60


def test_an_interrupted_turn_can_be_made_again(backend: Any) -> None:
    expected, played = session(backend, "through"), session(backend, "interrupted")
    histories = play(expected, 4)

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    for history in histories:
        with pytest.raises(KeyboardInterrupt):
            played.turn(history, on_text=interrupt)
        assert played.turn(history).message == expected.turns[len(played.turns) - 1].message


def test_healing_ends_the_chain_of_splices_a_turn_later(backend: Any) -> None:
    chained, healed = session(backend, "chained"), session(backend, "healed", heal=True)
    play(chained, 7, ahead=True)
    play(healed, 7, ahead=True)
    most = {
        tenant: max(max(s.move_counts) for s in backend.cache if s.tenant == tenant) for tenant in ("chained", "healed")
    }
    assert most["chained"] > most["healed"] == 1
    starts = {name: [t.receipt.approximate_from for t in s.turns] for name, s in (("c", chained), ("h", healed))}
    assert starts["h"][:3] == [None] * 3
    assert starts["h"][-1] > starts["c"][-1]  # all before the newest edit is what a clean prefill gives
    for turn in healed.turns:
        assert turn.receipt.fallback is None
        assert not turn.edits or turn.receipt.prefilled_tokens < turn.receipt.prompt_tokens / 2


def test_a_session_without_splices_has_nothing_to_heal(backend: Any) -> None:
    plain = session(backend, "nothing", mode=Mode.FORGET)
    healed = session(backend, "heal-nothing", mode=Mode.FORGET, heal=True)
    play(plain, 5, ahead=True)
    play(healed, 5, ahead=True)
    assert [t.message for t in healed.turns] == [t.message for t in plain.turns]
    assert [t.receipt for t in healed.turns] == [t.receipt for t in plain.turns]
