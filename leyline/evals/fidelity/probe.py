"""One probe, one JSON line: format `leyline-fidelity/1`.

A probe is one turn of one recorded trajectory, behind at least one AMORTIZE edit whose suffix was moved. The model
gives its next tokens three times, greedily: with the full history, with the edited history prefilled honestly, and with
the edited history whose suffix was spliced, recomputing the first `seam` tokens of every moved run. There is one record
for each seam; the two references are the same in all of them.

A plot of agreement against the number of edits needs `seam`, `edits`, `agree_full` and `agree_honest`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from leyline.directives import LeylineError
from leyline.evals.jsonl import read_lines

FORMAT: Final = "leyline-fidelity/1"


class FidelityError(LeylineError, ValueError):
    """A measurement that cannot be made, or records that cannot be read. The message says what to change."""


class FidelityRecord(BaseModel):
    """One probe at one seam. KL is in nats, over the first token's distribution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["leyline-fidelity/1"] = FORMAT
    model: str
    trajectory: str
    policy: str
    turn: int = Field(ge=0)
    seam: int = Field(ge=0)
    edits: int = Field(ge=1, description="Edits made so far, over all turns.")
    splices: int = Field(ge=1, description="Turns so far in which a run was moved.")
    full: int = Field(description="Tokens of the unedited prompt.")
    prompt: int = Field(description="Tokens of the edited prompt.")
    spliced: int = Field(description="Tokens moved in this turn.")
    approximate: int = Field(description="Tokens from the first approximate one to the end of the prompt.")
    agree_full: bool = Field(description="First token: spliced against the full history.")
    agree_honest: bool = Field(description="First token: spliced against the honest prefill.")
    references_agree: bool = Field(description="First token: honest prefill against the full history.")
    common_full: int = Field(description="Leading tokens of the continuation shared with the full history's.")
    common_honest: int
    common_references: int
    tokens_full: int = Field(description="Length of the full history's continuation, its stop token included.")
    tokens_honest: int
    kl_full: float = Field(description="KL(full || spliced).")
    kl_honest: float = Field(description="KL(honest || spliced).")
    kl_references: float = Field(description="KL(full || honest): what the edit itself does.")
    margin_full: float = Field(description="Gap between the two likeliest first tokens, in nats of log probability.")
    margin_honest: float

    @property
    def agree_either(self) -> bool:
        """The spliced answer begins as one of the two references does."""
        return self.agree_full or self.agree_honest


def read_records(path: str | Path) -> list[FidelityRecord]:
    """The records of a file, a torn last line left out. Raises FidelityError naming the line."""
    return read_lines(path, FidelityRecord, FORMAT, FidelityError)
