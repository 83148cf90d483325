"""The root of the exception tree, and the errors of this package.

    LeylineError
    ├── CostsError                 a file of costs cannot be read or written
    ├── DirectiveError             a token directive is out of range, overlaps or does nothing
    ├── EditError                  a message edit or a rendered prompt is inconsistent
    ├── WireError                  JSON from the other side is not a valid request or receipt
    ├── PolicyError                a policy cannot be loaded, or what it made of a history is not allowed
    ├── DialectError               a history cannot be read in its dialect
    ├── BackendError               what serves the model could not answer
    │   ├── ContextOverflowError   prompt and answer do not fit into the model's context
    │   ├── CutShortError          a stream ended without its last chunk
    │   └── RenderingError         the messages cannot be made into tokens
    ├── ConformanceError           a backend breaks a promise of the contract
    ├── GateError                  a gate cannot be read, or belongs to another model
    ├── ModelError                 no model has this name
    ├── ModelNotFoundError         no bundled model has this name
    ├── PackError                  a bundled model is damaged or cannot be expanded
    ├── RadixError                 a size that no simulated cache can have
    ├── LaunchError                a server cannot be started like this
    ├── UnsupportedVersionError    the plugin does not know this release of SGLang
    ├── InputError                 a session is given something that is no history, no tools or no setting
    ├── LedgerError                a saved ledger cannot be read, or an index names no message
    ├── StoreError                 the file of a ledger cannot be used
    ├── TrajectoryError            a trajectory cannot be read or written
    ├── WrapError                  what was given is no client that can be wrapped
    ├── HarnessError               the harness failed, not the agent
    ├── SandboxError               a command could not be started
    ├── ToolError                  a tool box was asked for a tool that does not exist
    ├── WorkspaceError             a path or a file of a workspace cannot be used
    │   ├── ChangedSourceError     the folder that a task was laid out from has changed
    │   └── NoFileError            there is no such file
    ├── SuiteError                 a suite cannot be had or a task cannot be laid out
    ├── TaskError                  no such micro task: its level, its split or its seed
    ├── ConfigError                the configuration of an eval is wrong
    ├── ArmError                   an arm of an eval is wrong
    ├── JournalError               the records of a run cannot be read or written
    ├── TraceError                 a file holds no trajectory, or not the one asked for
    ├── ReplayError                records of a replay cannot be read
    ├── FidelityError              records of the fidelity lab cannot be read
    ├── ReportError                a report cannot be made of what is there
    ├── StatsError                 numbers that no statistic can be made of, or no SciPy
    └── UsageError                 the command line asks for something that is not there

Every message is one line that says what is wrong and what to do next.
"""

from __future__ import annotations

from leyline.directives.fallback import Fallback


class LeylineError(Exception):
    """The root of every error that Leyline raises on purpose."""


class DirectiveError(LeylineError, ValueError):
    """A directive cannot be applied to its source.

    index: which directive of the script, or None for one that is not in a script yet.
    field: `start`, `end`, `replacement`, `mode`, `removed`, `seam` or `sink`.
    bound: the bound that was broken, or None where there is no number.
    reason: what a receipt would say.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None,
        field: str,
        bound: int | None = None,
        reason: Fallback = Fallback.OUT_OF_RANGE,
    ) -> None:
        super().__init__(message if index is None else f"directive {index}: {message}")
        self.index = index
        self.field = field
        self.bound = bound
        self.reason = reason


class BackendError(LeylineError):
    """What serves the model could not answer. The message says what to do next.

    `retryable` is true when the same request may succeed later (a time-out, a busy server), `final` when no request
    to this server will before a person has done something (a refused key, a spent quota).
    """

    def __init__(self, message: str, *, retryable: bool = False, final: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.final = final


class EditError(LeylineError, ValueError):
    """A message edit does not fit its history, or a rendered prompt's spans do not fit its tokens."""


class WireError(LeylineError, ValueError):
    """The only error that parsing untrusted JSON raises. `reason` is what a receipt would say."""

    def __init__(self, message: str, *, reason: Fallback = Fallback.MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason
