"""The tiny models, tokenizers and renderers of the backends' tests serve here too."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_SPEC = spec_from_file_location("backends_conftest", Path(__file__).parents[1] / "backends" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_shared = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_shared)

make_model, make_tokenizer = _shared.make_model, _shared.make_tokenizer
make_renderer, model_dir = _shared.make_renderer, _shared.model_dir
