"""A fidelity gate: what was measured of a model decides whether its backend may honour AMORTIZE.

`leyline eval fidelity` writes the file. With a gate that says `forget` every AMORTIZE is served as FORGET and the
receipt says `gated`; with one that says `amortize` at seam k, at least the first k tokens of every reused run are
recomputed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from leyline.backends.contract import Backend, Capabilities, TokenRenderer, Turn, TurnInput
from leyline.directives import EditScript, Fallback, JsonMapping, LeylineError, Message, Mode, Outcome, Receipt
from leyline.models.identity import folder_digest, weight_files

FORMAT = "leyline-gate/1"
_SCHEME = "content:"  # begins a digest that covers whole files
_OLD_BYTES = 1 << 24


class GateError(LeylineError, ValueError):
    """A gate cannot be read, or belongs to another model. The message says what to do."""


@dataclass(frozen=True)
class Gate:
    """What a model was found fit for.

    model: its name as the backend gives it. digest: of its files, as of `model_digest`, or None where they were not at
    hand. mode: AMORTIZE or FORGET. seam: tokens to recompute at the start of every reused run, at least. evidence: the
    measurement, for people.
    """

    model: str
    mode: Mode
    seam: int = 0
    digest: str | None = None
    evidence: JsonMapping = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gate:
        """Raises GateError."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise GateError(f"cannot read the gate {path}: {error.strerror or error}") from None
        except ValueError as error:
            raise GateError(f"the gate {path} is not JSON: {str(error)[:100]}") from None
        found = data.get("format") if isinstance(data, dict) else None
        if found != FORMAT:
            raise GateError(f"{path} is no gate of this release: its format is {found!r}, not {FORMAT!r}")
        try:
            gate = cls(
                str(data["model"]), Mode(data["mode"]), data["seam"], data.get("digest"), data.get("evidence") or {}
            )
        except (KeyError, ValueError) as error:
            raise GateError(f"the gate {path} is damaged: {error!r}; measure it again") from None
        if type(gate.seam) is not int or gate.seam < 0:
            raise GateError(f"the gate {path} is damaged: seam is {gate.seam!r}; measure it again")
        return gate

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the gate. Raises GateError."""
        data = {
            "format": FORMAT,
            "model": self.model,
            "digest": self.digest,
            "mode": self.mode.value,
            "seam": self.seam,
            "evidence": dict(self.evidence),
        }
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise GateError(f"cannot write the gate {path}: {error.strerror or error}") from None

    def check(self, model: str, digest: str | None = None) -> None:
        """Raise GateError unless the gate was measured on this model. digest: of the model's files, where known."""
        if digest is not None and self.digest is not None:
            if digest != self.digest:
                raise GateError(
                    f"the gate was measured on other weights than those of {model!r}; "
                    f"measure it: leyline eval fidelity {model}"
                )
        elif Path(model).name != Path(self.model).name:
            raise GateError(
                f"the gate was measured on {self.model!r}, the backend serves {model!r}; "
                f"measure it: leyline eval fidelity {model}"
            )


class GatedBackend:
    """`inner`, held to a gate. Raises GateError if the gate was measured on another model."""

    def __init__(self, inner: Backend, gate: Gate, *, digest: str | None = None) -> None:
        gate.check(inner.capabilities().model, digest)
        self._inner = inner
        self.gate = gate

    @property
    def renderer(self) -> TokenRenderer | None:
        return self._inner.renderer

    def capabilities(self) -> Capabilities:
        """As of the inner backend; a gate that says FORGET turns `splice` off and is the reason."""
        found = self._inner.capabilities()
        if self.gate.mode is Mode.AMORTIZE or not found.splice:
            return found
        return replace(found, splice=False, reason=f"{Fallback.GATED}: the fidelity gate says FORGET")

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        turn = self._inner.chat(messages, tools, self._held(session))
        return replace(turn, receipt=self._said(turn.receipt, session.script))

    def prewarm(self, session: TurnInput) -> None:
        self._inner.prewarm(self._held(session))

    def close(self) -> None:
        self._inner.close()

    def _held(self, session: TurnInput) -> TurnInput:
        """The request as far as the gate lets it through."""
        if self.gate.mode is Mode.AMORTIZE:
            return replace(session, seam=max(session.seam, self.gate.seam))
        script = EditScript(tuple(replace(d, mode=Mode.FORGET) for d in session.script))
        return replace(session, script=script, allow=None if session.allow is None else Mode.FORGET)

    def _said(self, receipt: Receipt, asked: EditScript) -> Receipt:
        """The receipt in terms of what was asked."""
        first = next((i for i, d in enumerate(asked) if d.mode is Mode.FORGET), len(asked))  # it forgets what follows
        if self.gate.mode is Mode.AMORTIZE or not first or receipt.fallback is not None:
            return receipt
        return replace(
            receipt,
            fallback=Fallback.GATED,
            detail=f"the fidelity gate of {self.gate.model} says FORGET",
            acknowledged=(*(Outcome.PREFILLED,) * first, *receipt.acknowledged[first:]),
        )


def gated(inner: Backend, gate: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> GatedBackend:
    """`inner` behind the gate of a file. folder: the model's, where it is at hand. Raises GateError."""
    found = Gate.load(gate)
    return GatedBackend(inner, found, digest=None if folder is None else digest_for(found, folder))


def model_digest(folder: str | os.PathLike[str]) -> str:
    """What a gate remembers of the model it was measured on: a digest of the content of its config and its weights.

    Raises GateError.
    """
    path = Path(folder)
    config = [file for file in [path / "config.json"] if file.is_file()]
    try:
        return f"{_SCHEME}{folder_digest(path, [*config, *weight_files(path)])}"
    except LeylineError as error:
        raise GateError(str(error)) from None


def digest_for(gate: Gate, folder: str | os.PathLike[str]) -> str:
    """The digest of a model folder that a gate is to be held against. Raises GateError.

    Gates of older releases name a digest of the first 16 MiB of each weight file. It still counts where that is all
    there is of every file; where it is not, weights that differ further on would pass, so it does not.
    """
    path = Path(folder)
    if gate.digest is None or gate.digest.startswith(_SCHEME):
        return model_digest(path)
    weights = weight_files(path)
    if any(file.stat().st_size > _OLD_BYTES for file in weights):
        raise GateError(
            "the gate was measured by an older release, which looked at the beginning of the weights only; "
            f"measure it again: leyline eval fidelity {path}"
        )
    state = hashlib.blake2b(digest_size=16)
    for file in [path / "config.json", *(file for file in weights if file.suffix in (".safetensors", ".bin"))]:
        if file.is_file():
            data = file.read_bytes()[:_OLD_BYTES]
            state.update(f"{file.name}\0{file.stat().st_size}\0".encode() + data)
    return state.hexdigest()
