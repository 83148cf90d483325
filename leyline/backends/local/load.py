"""Loading a model directory, with errors that say what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from leyline.backends.contract import BackendError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(path: str | os.PathLike[str], *, device: str | None, dtype: str | torch.dtype | None) -> PreTrainedModel:
    """A transformers causal LM from a directory, in eval mode. Nothing is downloaded.

    device: None takes CUDA when there is one. dtype: None is float32 on a CPU, else the one of the weights.
    Raises `BackendError`.
    """
    directory = Path(path)
    if not (directory / "config.json").is_file():
        raise BackendError(f"no model in {str(path)!r}: config.json is missing; give a model directory")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise BackendError(f"dtype {dtype!r} is not known; use one of {', '.join(DTYPES)}")
        dtype = DTYPES[dtype]
    if dtype is None and device == "cpu":
        dtype = torch.float32
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise BackendError(f"{error.name} is not installed; run: pip install 'leyline-kv[local]'") from error
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype or "auto", local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BackendError(f"cannot load the model in {str(path)!r}: {line[:300]}") from error
    finally:
        if bar:
            logging.enable_progress_bar()
    return model.to(device).eval()


def accelerator(model: PreTrainedModel) -> str | None:
    """The name of the accelerator that holds the model's first weight, None for a CPU."""
    device = next(model.parameters()).device
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def stop_tokens(model: PreTrainedModel, eos_token_id: int | None) -> frozenset[int]:
    """Every token that ends a turn: of the generation config, of the model's config and of the tokenizer."""
    found: set[int] = set() if eos_token_id is None else {eos_token_id}
    for config in (getattr(model, "generation_config", None), model.config):
        value = getattr(config, "eos_token_id", None)
        if isinstance(value, int):
            found.add(value)
        elif value is not None:
            found.update(int(v) for v in value)
    return frozenset(found)
