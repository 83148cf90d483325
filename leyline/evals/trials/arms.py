"""Arms: what is compared. Every arm runs on the same tasks and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from leyline.directives import JsonMapping, JsonObject, LeylineError
from leyline.directives.digest import config_digest
from leyline.evals.jsonl import first_problem

TRUNCATE = "truncate_older_than(n=2, max_chars=200)"
FROZEN = "freeze(truncate_older_than(n=0, max_chars=200), every=10, behind=4)"
"""What an edit policy has to beat on an ordinary cache: rare edits, far back, that stay."""
FILTERED = "at_arrival(truncate_older_than(n=0, max_chars=2000))"
"""The same without an edit of anything that is cached: an output is short before it is seen."""
SERVED = "served"
"""Stands for the model that a server serves, whatever its name."""


class ArmError(LeylineError, ValueError):
    """An arm that cannot be run. The message names it."""


class Arm(BaseModel):
    """One way to run a task. Everything but the name decides the trial and goes into its digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="How the report calls the arm.")
    policy: str = Field(default="keep_all", description="A policy by name, dotted path or file.")
    mode: Literal["plain", "amortize", "forget", "auto"] = Field(
        default="plain",
        description="The contract of edits; plain sends no directives: the edited prompt meets an ordinary cache.",
    )
    backend: Literal["local", "sglang", "openai", "mock"] = Field(
        default="local", description="What serves the model; mock answers from options.script, a JSON list of replies."
    )
    model: str = Field(default="tiny-gqa", description="A bundled model, a directory, or the server's model name.")
    url: str | None = Field(default=None, description="Address of the server, for sglang and openai.")
    seam: int = Field(default=0, ge=0, description="Tokens recomputed at the start of every reused run.")
    prewarm: bool = Field(default=False, description="Prefill the known part of the next turn while a tool runs.")
    honest: bool = Field(default=False, description="Drop the lineage on every FORGET.")
    heal: bool = Field(
        default=False,
        description="Prefill the edited prompt honestly while a tool runs and drop the lineage; prewarms in place.",
    )
    control: bool = Field(default=False, description="A negative control: expected to do badly.")
    options: JsonMapping = Field(default_factory=dict, description="Further arguments of the backend.")

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if "/" in name or name != name.strip() or not name.isprintable():
            raise ValueError("a name is printable, without slashes and without spaces at its ends")
        return name

    @model_serializer(mode="wrap")
    def _without_later_fields(self, dump: SerializerFunctionWrapHandler) -> JsonObject:
        # A field that came later is written only where it is set, so that runs from before it go on.
        return {name: value for name, value in dump(self).items() if name != "heal" or value}

    def digest(self) -> str:
        return config_digest(self.model_dump(exclude={"name", "control"}))

    def backend_key(self) -> str:
        """Arms with one key can share a loaded backend."""
        return config_digest({"backend": self.backend, "model": self.model, "url": self.url, "options": self.options})


def default_arms(models: Sequence[str], **fields: object) -> list[Arm]:
    """The arms of the README's table for each model; names carry the model where there are several.

    The last one is the control: AMORTIZE without the rotation, which only the local backend offers. Raises ArmError.
    """
    arms = []
    for model in models:
        suffix = f" ({model})" if len(models) > 1 else ""
        common = {**fields, "model": model}
        for name, policy, mode in (
            ("keep_all", "keep_all", "plain"),
            ("truncate", TRUNCATE, "plain"),
            ("truncate+AMORTIZE", TRUNCATE, "amortize"),
            ("truncate+FORGET", TRUNCATE, "forget"),
            ("frozen compaction", FROZEN, "plain"),
            ("filter at arrival", FILTERED, "plain"),
        ):
            arms.append(make_arm({**common, "name": f"{name}{suffix}", "policy": policy, "mode": mode}))
        if arms[-1].backend == "local":
            options = {**arms[-1].options, "rotate": False}
            control = {"name": f"unrotated control{suffix}", "policy": TRUNCATE, "mode": "amortize", "control": True}
            arms.append(make_arm({**common, **control, "options": options}))
    return arms


def parse_arm(text: str, **fields: object) -> Arm:
    """An arm from `NAME=POLICY[,key=value...]`, `POLICY` or `POLICY@MODE`.

    `truncate_older_than(n=2)@amortize` is the policy with AMORTIZE directives; commas inside parentheses belong to the
    policy. Keys are the fields of an arm, `options.KEY` those of its backend. Raises ArmError.
    """
    parts = _split(text)
    head, settings = parts[0], parts[1:]
    name, equals, policy = head.partition("=") if "(" not in head.partition("=")[0] else ("", "", head)
    policy = policy if equals else head
    values: JsonObject = dict(fields)
    policy, at, mode = policy.rpartition("@") if "@" in policy else (policy, "", "")
    if at:
        values["mode"] = mode.lower()
    for setting in settings:
        key, equal, value = (part.strip() for part in setting.partition("="))
        if not equal:
            raise ArmError(f"arm {text!r}: {setting!r} is not key=value")
        if key.startswith("options."):
            values["options"] = {**values.get("options", {}), key.removeprefix("options."): _value(value)}
        else:
            values[key] = value
    label = name.strip() if equals and name.strip() else head
    return make_arm({**values, "policy": policy.strip(), "name": label.strip().replace("/", "-")})


def resolve_arms(chosen: object, models: Sequence[str], **fields: Any) -> list[Arm]:
    """Arms from what a person writes: "default", an arm as text, a mapping, or a list of these.

    models: the ones that were named, none for those of the arm's backend; "default" is run on all of them, an arm that
    names none on the first. fields: used where an arm says nothing. Raises ArmError.
    """
    arms: list[Arm] = []
    if not isinstance(chosen, str | Mapping | list | tuple):
        raise ArmError(f"arms is a list of texts and mappings, not {chosen!r}")
    for item in [chosen] if isinstance(chosen, str | Mapping) else chosen:
        if item == "default":
            arms += default_arms(models or default_models(fields.get("backend", "local")), **fields)
            continue
        if isinstance(item, str):
            if get_close_matches(item, ["default"], cutoff=0.8):
                raise ArmError(f"unknown arm {item!r}; did you mean default?")
            arm = parse_arm(item, **fields)
        elif isinstance(item, Mapping):
            arm = make_arm({**fields, "name": str(item.get("policy", "keep_all")).replace("/", "-"), **item})
        else:
            raise ArmError(f"an arm is a text or a mapping, not {type(item).__name__}")
        if "model" not in arm.model_fields_set:
            arm = arm.model_copy(update={"model": (models or default_models(arm.backend))[0]})
        arms.append(arm)
    return arms


def default_models(backend: str) -> list[str]:
    """What an arm runs on that names no model: every bundled one, or whatever the server serves. Raises ArmError."""
    if backend == "openai":
        raise ArmError("the openai backend needs the name of the model that the server serves: --model NAME")
    if backend != "local":
        return [SERVED if backend == "sglang" else backend]
    from leyline.models import names

    if found := names():
        return found
    raise ArmError("no bundled model is installed; give --model FOLDER")


def make_arm(values: Mapping[str, object]) -> Arm:
    """An arm from a mapping. Raises ArmError with the field that is wrong."""
    from pydantic import ValidationError

    try:
        return Arm.model_validate(dict(values))
    except ValidationError as error:
        raise ArmError(f"arm {values.get('name', '?')!r}: {first_problem(error, 'arm', Arm)}") from None


def check_arms(arms: Sequence[Arm]) -> None:
    """Raise ArmError unless names are unique, every policy loads, and a server that is named is used."""
    from leyline.policies import load_policy

    names: set[str] = set()
    for arm in arms:
        if arm.name in names:
            raise ArmError(f"two arms are called {arm.name!r}: give one of them another name")
        names.add(arm.name)
        if arm.backend in ("sglang", "openai") and arm.url is None:
            raise ArmError(f"arm {arm.name!r}: backend {arm.backend} needs a server: --base-url http://HOST:PORT")
        if "api_key" in arm.options:
            raise ArmError(f"arm {arm.name!r}: a key does not belong into a configuration; set OPENAI_API_KEY")
        if arm.backend == "mock" and "script" not in arm.options:
            raise ArmError(f"arm {arm.name!r}: backend mock needs options.script, a JSON file with a list of replies")
        load_policy(arm.policy)
    url = next((arm.url for arm in arms if arm.url is not None), None)
    if url is not None and not any(arm.backend in ("sglang", "openai") for arm in arms):
        raise ArmError(f"no arm uses the server {url}: --base-url needs --backend sglang or openai")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _split(text: str) -> list[str]:
    """Split at commas outside of parentheses and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]
