"""The configuration of an eval: a YAML file, overridden by `key=value`, checked before anything runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from leyline.directives import JsonMapping, LeylineError
from leyline.evals.jsonl import first_problem
from leyline.evals.trials.arms import Arm
from leyline.suites.spec import SuiteSpec


class ConfigError(LeylineError, ValueError):
    """The configuration is wrong. The message names the field."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrialLimits(_Section):
    """Where one trial ends by itself."""

    turns: int | None = Field(default=None, ge=1, description="Model calls; None takes the task's own number.")
    seconds: float | None = Field(default=600.0, gt=0, description="Wall seconds.")
    max_tokens: int = Field(default=512, ge=1, description="Generated tokens a turn.")


class SamplingSpec(_Section):
    """Decoding. The trial's seed is the sampling seed; at temperature 0 seeds differ in nothing but the task's own."""

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class Budget(_Section):
    """Where the whole run stops starting trials. What is running is finished, and a re-run goes on."""

    minutes: float | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, ge=1, description="Prefilled and generated tokens together.")
    errors: int | None = Field(
        default=20, ge=1, description="Trials in a row that ended in an error: a server that is gone ends the run."
    )


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class EvalConfig(_Section):
    """One eval. Everything a report needs to say how its numbers came about."""

    suite: SuiteSpec
    arms: tuple[Arm, ...] = Field(min_length=1, description="In YAML also: default, or a text such as POLICY@MODE.")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    n: int | None = Field(default=None, ge=1, description="At most this many tasks.")
    filter: str | None = Field(default=None, description="Only tasks whose id matches this regular expression.")
    slice: str | None = Field(default=None, description="START:STOP:STEP over the filtered tasks.")
    limits: TrialLimits = TrialLimits()
    sampling: SamplingSpec = SamplingSpec()
    budget: Budget = Budget()
    executor: Literal["local", "ray"] = "local"
    workers: int = Field(default_factory=cores, ge=0, description="Processes; 0 runs the trials in this one.")
    trajectories: Literal["all", "sample", "none"] = Field(
        default="all", description="Which trials keep a trajectory; sample: the first three tasks of each arm."
    )
    redo: Literal["none", "errors", "all"] = Field(default="none", description="Recorded trials to run again.")

    @field_validator("seeds")
    @classmethod
    def _once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("give every seed once: the same trial twice is one trial")
        return seeds


def override(data: dict[str, object], settings: Sequence[str]) -> None:
    """Put `a.b=value` settings into `data`. Values are JSON, or text where that does not parse. Raises ConfigError."""
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"{setting!r} is not key=value")
        _put(data, key.split("."), _value(value), setting)


def build_config(data: JsonMapping) -> EvalConfig:
    """Check a mapping. Raises ConfigError naming the field."""
    try:
        return EvalConfig.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(first_problem(error, "config", EvalConfig)) from None


def read_config(path: Path) -> dict[str, object]:
    """The mapping in a YAML or JSON file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    if path.suffix == ".json":
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not JSON: {error}") from None
    else:
        try:
            import yaml
        except ImportError:
            raise ConfigError("reading YAML needs PyYAML: pip install pyyaml, or give the config as .json") from None
        try:
            data = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that there is not
            raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping with suite and arms")
    return data


def _put(data: dict[str, object], keys: Sequence[str], value: object, override: str) -> None:
    place: object = data
    for key in keys[:-1]:
        if isinstance(place, list) and key.isdigit() and int(key) < len(place):
            place = place[int(key)]
        elif isinstance(place, dict):
            place = place.setdefault(key, {})
        else:
            raise ConfigError(f"{override!r}: there is no {key!r} to set")
    last = keys[-1]
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"{override!r}: there is no {last!r} to set")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
