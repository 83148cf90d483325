"""From a GGUF file of the Llama architecture to a Hugging Face folder: weights in fp16, tokenizer, configuration.

llama.cpp stores the rows of the query
and key projections with the rotary pairs side by side, transformers in two halves, so they are put back. The output is
byte-reproducible: the same file gives the same folder.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from leyline.directives import JsonObject
from leyline.models.gguf import GgufFile, GgufTensor
from leyline.models.pack import PackError, Tensor, write_safetensors

if TYPE_CHECKING:
    from numpy import ndarray

_WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")
_CONTROL = 3  # gguf's token type of special tokens


def convert(source: Path, target: Path, chat_template: str) -> None:
    """Write the folder `target`, which exists, from the GGUF file `source`. Needs numpy.

    chat_template: instead of the file's own. Raises PackError for a file that is none, or of another architecture.
    """
    file = GgufFile(source)
    if file.text("general.architecture") != "llama":
        raise PackError(f"{source} holds a model of {file.text('general.architecture')}; only llama is converted")
    write_safetensors(target / "model.safetensors", _weights(file))
    for name, content in (("config.json", _config(file)), ("tokenizer_config.json", _tokenizer_config(file))):
        (target / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (target / "tokenizer.json").write_text(_tokenizer(file), encoding="utf-8")
    (target / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def _weights(file: GgufFile) -> dict[str, Tensor]:
    heads = {
        "q_proj.weight": file.number("llama.attention.head_count"),
        "k_proj.weight": file.number("llama.attention.head_count_kv"),
    }
    found = {}
    for tensor in file.tensors:
        name = _renamed(tensor.name)
        turned = heads.get(".".join(name.split(".")[-2:]))
        # Made where it is written, so that one tensor at a time is in memory.
        found[name] = Tensor("F16", list(tensor.shape), partial(_fp16, tensor, turned))
    return dict(sorted(found.items()))


def _fp16(tensor: GgufTensor, turned: int | None) -> bytes:
    values = tensor.values()
    return (values if turned is None else _halves(values, turned)).astype("<f2").tobytes()


def _renamed(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    block = _BLOCK.fullmatch(stem)
    known = _LAYER.get(block[2]) if block else _WHOLE.get(stem)
    if known is None or kind != "weight":
        raise PackError(f"the tensor {name} has no place in a model of transformers' Llama")
    return f"model.layers.{block[1]}.{known}.weight" if block else f"{known}.weight"


def _halves(values: ndarray, heads: int) -> ndarray:
    """From rotary pairs side by side to two halves a head. values: (heads * dim, columns)."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _config(file: GgufFile) -> JsonObject:
    heads, width = file.number("llama.attention.head_count"), file.number("llama.embedding_length")
    theta = file.real("llama.rope.freq_base")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(file.strings("tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": file.number("llama.feed_forward_length"),
        "num_hidden_layers": file.number("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.number("llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "max_position_embeddings": file.number("llama.context_length"),
        "rms_norm_eps": round(file.real("llama.attention.layer_norm_rms_epsilon"), 10),
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": all(t.name != "output.weight" for t in file.tensors),
        "dtype": "float16",
        "bos_token_id": file.number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.number("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.number("tokenizer.ggml.padding_token_id"),
    }


def _tokenizer_config(file: GgufFile) -> JsonObject:
    tokens = file.strings("tokenizer.ggml.tokens")
    names = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    return {
        **{f"{name}_token": tokens[file.number(f"tokenizer.ggml.{key}_token_id")] for name, key in names.items()},
        "model_max_length": file.number("llama.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _tokenizer(file: GgufFile) -> str:
    """The `tokenizer.json`: byte-level BPE, digits one by one where the file asks for that."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind, before = file.text("tokenizer.ggml.model"), file.text("tokenizer.ggml.pre")
    if (kind, before) != ("gpt2", "smollm"):
        raise PackError(f"the tokenizer {kind}/{before} is not converted; only gpt2/smollm is")
    tokens, kinds = file.strings("tokenizer.ggml.tokens"), file.strings("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in file.strings("tokenizer.ggml.merges")]
    built = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    built.decoder = decoders.ByteLevel()
    control = [token for token, what in zip(tokens, kinds, strict=True) if int(what) == _CONTROL]
    built.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return str(built.to_str())
