"""An eval's configuration from a suite's name, a file and the command line's words; the last of them wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leyline.directives import JsonMapping
from leyline.evals.trials.arms import Arm, resolve_arms
from leyline.evals.trials.config import ConfigError, EvalConfig, build_config, override, read_config

_CONFIG_SUFFIXES = {".yaml", ".yml", ".json"}


def assemble(
    name: str,
    settings: JsonMapping,
    *,
    arms: Sequence[str] = (),
    models: Sequence[str] = (),
    arm_fields: JsonMapping | None = None,
    options: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> EvalConfig:
    """The configuration of `leyline eval NAME`.

    name: a suite, a task folder (debug_gym), or a YAML or JSON file with the fields of EvalConfig; there `suite` may be
    a name, `arms` may hold texts and "default", and `models` (a name or several) and `arm_defaults` (fields of an arm)
    say what "default" and every arm start from. settings: fields of EvalConfig, None where the person said nothing.
    options: `key=value` for the suite. overrides: `a.b=value`. Raises ConfigError or ArmError.
    """
    data = _base(name)
    if isinstance(data.get("suite"), str):
        data["suite"] = {"name": data["suite"]}
    override(data, [f"suite.options.{option}" for option in options])
    override(data, [f"{key}={value}" for key, value in _flat(settings)])
    chosen = list(arms) or data.get("arms") or "default"
    fields = {**_arm_defaults(data), **{k: v for k, v in (arm_fields or {}).items() if v is not None}}
    listed, one = _models(data), fields.pop("model", None)
    known = list(models) or listed or ([one] if one else [])
    data["arms"] = [arm.model_dump() for arm in resolve_arms(chosen, known, **fields)]
    override(data, overrides)
    return build_config(data)


def _arm_defaults(data: dict[str, object]) -> dict[str, object]:
    """Take `arm_defaults` out of the data; empty where there is none."""
    found = data.pop("arm_defaults", None) or {}
    known = [name for name in Arm.model_fields if name != "name"]
    if not isinstance(found, Mapping):
        raise ConfigError(f"arm_defaults: give fields of an arm, such as {{seam: 0}}, not {found!r}")
    for name in found:
        if name not in known:
            raise ConfigError(f"arm_defaults: an arm has no field {name!r}; it has {', '.join(known)}")
    return dict(found)


def _models(data: dict[str, object]) -> list[str]:
    """Take `models` out of the data: one name is a list of one, and none is an empty list."""
    found = data.pop("models", None) or []
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"models: give a name or a list of names, such as [tiny-mla], not {found!r}")
    return names


def _base(name: str) -> dict[str, object]:
    path = Path(name)
    if path.suffix in _CONFIG_SUFFIXES:
        return read_config(path)
    if path.is_dir() and ("/" in name or "\\" in name or name == "."):
        return {"suite": {"name": "debug_gym", "options": {"folder": str(path)}}}
    return {"suite": {"name": name}}


def _flat(settings: Mapping[str, object]) -> list[tuple[str, str]]:
    import json

    return [(key, json.dumps(value)) for key, value in settings.items() if value is not None]


def parse_seeds(text: str) -> list[int]:
    """`3` is the seeds 0, 1, 2; `4,7` are these two. Raises ConfigError."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"seeds {text!r}: give how many (3), or a list (0,1,2)") from None
    if "," not in text:
        if not numbers or numbers[0] < 1:
            raise ConfigError(f"seeds {text!r}: give at least 1, or a list (0,1,2)")
        return list(range(numbers[0]))
    if not numbers or len(set(numbers)) != len(numbers):
        raise ConfigError(f"seeds {text!r}: every seed once, at least one")
    return numbers
