"""Modules by the names they had before each room had its own: they still import, with a DeprecationWarning.

What stands here is looked up when an import finds nothing else, so nothing is loaded for it before.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

# Old name, then where what it held is now; below `leyline.`. `module:name:old` is one name that is another now.
# A package's modules follow it, if they have no line.
_TABLE = """
backends.base                    backends.contract rendering.renderer
backends.boundaries              rendering.boundaries
backends.local.engine            backends.local.execution
backends.local.plan              backends.local.reuse
backends.openai_errors           backends.http.errors
backends.openai_reply            backends.openai.reply backends.openai.assembly backends.http.usage
backends.render                  rendering.render rendering.errors
backends.sglang.adapter_0516     backends.sglang.plugin.adapter_0516
backends.sglang.adapter_0523     backends.sglang.plugin.adapter_0523
backends.sglang.admission        backends.sglang.plugin.admission
backends.sglang.build            backends.sglang.plugin.build
backends.sglang.cache            backends.sglang.plugin.cache
backends.sglang.entry            backends.sglang.plugin.entry
backends.sglang.generation       backends.sglang.client.generated
backends.sglang.generations      backends.sglang.plugin.move_counts
backends.sglang.integrity        backends.sglang.plugin.integrity
backends.sglang.keys             backends.sglang.plugin.keys
backends.sglang.metrics          backends.sglang.plugin.metrics
backends.sglang.mover            backends.sglang.plugin.mover
backends.sglang.ops              backends.sglang.plugin.ops
backends.sglang.plan             backends.sglang.plugin.runs
backends.sglang.receipts         backends.sglang.plugin.receipts
backends.sglang.refuse           backends.sglang.plugin.refuse
backends.sglang.requests         backends.sglang.client.requests
backends.sglang.rope             backends.sglang.plugin.rope
backends.sglang.splicer          backends.sglang.plugin.splicer
backends.sglang.streaming        backends.sglang.plugin.streaming
backends.sglang.tokenizer        backends.sglang.client.tokenizer
backends.sglang.transport        backends.sglang.client.server
backends.sse                     backends.http.sse
backends.template                rendering.template
backends.textstream              rendering.textstream
backends.toolcalls               rendering.toolcalls
evals.arms                       evals.trials.arms
evals.assemble                   evals.trials.assemble
evals.backends                   evals.trials.serving backends.connect backends.plain models.find
evals.cachesim                   backends.simulated.backend
evals.commands                   commands
evals.config                     evals.trials.config suites.spec
evals.dryrun                     evals.replay.dryrun
evals.energy                     evals.trials.energy
evals.engine                     evals.trials.run_eval
evals.environment                evals.trials.environment
evals.fidelity.records           evals.fidelity.probe
evals.fidelity.tables            evals.fidelity.summary
evals.journal                    evals.trials.journal
evals.models                     models
evals.plan                       evals.trials.schedule
evals.pool                       evals.trials.pool
evals.power                      evals.stats.power
evals.radix                      backends.simulated.radix
evals.ray_pool                   evals.trials.ray_pool
evals.records                    evals.trials.record directives.digest evals.trials.record:TrialOutcome:Outcome
evals.replay.engine              evals.replay.walk
evals.replay.records             evals.replay.replayed
evals.replay.tables              evals.replay.by_policy
evals.report.report              evals.report.content
evals.report.tables              evals.report.sections
evals.rundir                     evals.trials.rundir
evals.suites                     suites
evals.suites.base                suites.suite
evals.suites.debug_gym           suites.debug_gym.gym_suite
evals.suites.debug_gym_judge     suites.debug_gym.judge
evals.suites.folders             suites.debug_gym.folders
evals.suites.micro.documents     suites.micro.corpus
evals.suites.micro_suite         suites.micro.micro_suite
evals.suites.plain_runner        suites.debug_gym.plain_runner
evals.suites.swebench            suites.swebench.swebench_suite
evals.suites.swebench_container  suites.swebench.container
evals.suites.swebench_grade      suites.swebench.grade
evals.suites.swebench_here       suites.swebench.here
evals.suites.swebench_repos      suites.swebench.repos
evals.suites.swebench_rows       suites.swebench.rows
evals.suites.swebench_score      evals.trials.scoring
evals.tally                      evals.trials.tally
evals.textrender                 rendering.textrender models.find rendering.tokenizer:read_tokenizer:_tokenizer
evals.traces                     evals.replay.traces evals.trials.turns evals.replay.traces:Recording:Trajectory
evals.trial                      evals.trials.trial evals.trials.turns
harness._confine                 harness.sandbox._confine
harness.disk                     harness.sandbox.disk
harness.inputs                   harness.session.inputs
harness.isolation                harness.sandbox.isolation
harness.jail                     harness.workspace.jail
harness.ledger                   harness.session.ledger harness.session.pins
harness.patch                    harness.workspace.patch
harness.pins                     harness.session.pins
harness.plural                   directives.counts
harness.process                  harness.sandbox.process
harness.proposals                harness.session.proposals
harness.snapshot                 harness.workspace.snapshot
harness.tools.base               harness.tools.tool
harness.wrap.report              harness.wrap
policies.history                 policies.reading.calls
policies.shell                   policies.reading.shell
policies.size                    policies.reading.sizes
policies.stale                   policies.reading.stale
policies.testruns                policies.reading.testruns
policies.text                    policies.reading.text
"""


def moved() -> dict[str, list[str]]:
    """Every old module of the table, and where what it held is now."""
    rows = (line.split() for line in _TABLE.split("\n") if line)
    return {f"leyline.{old}": [f"leyline.{new}" for new in places] for old, *places in rows}


class MovedFinder:
    """Finds the modules of the table. It stands behind every other finder."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("leyline."):
            return None
        table = moved()
        places = table.get(name)
        if places is None:  # a module of a package that moved
            parent, _, module = name.rpartition(".")
            while parent and parent not in table:
                parent, _, above = parent.rpartition(".")
                module = f"{above}.{module}"
            if not parent:
                return None
            places = [f"{table[parent][0]}.{module}"]
        found = find_spec(places[0])
        if found is None:
            return None
        return ModuleSpec(name, _MovedLoader(places), is_package=found.submodule_search_locations is not None)


class _MovedLoader(Loader):
    """Makes a module that asks for its names where they are now."""

    def __init__(self, places: Sequence[str]) -> None:
        self._places = places

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _Moved(spec.name)
        vars(module)["__getattr__"] = old_names(spec.name, *self._places)
        return module

    def exec_module(self, module: ModuleType) -> None:
        package, _, name = module.__name__.rpartition(".")
        room = sys.modules[package]
        if name in vars(room).get("__all__", ()):
            room.__class__ = _Keeps
        _warn(module.__name__, self._places, 3)


class _Moved(ModuleType):
    """A module that holds nothing: its names are asked of where they are now."""

    def __dir__(self) -> list[str]:
        return sorted(set(self.__all__))


class _Keeps(ModuleType):
    """A package one of whose names is also an old module's: the import of that module does not put it in its place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, _Moved) and name in self.__dict__["__all__"]):
            super().__setattr__(name, value)


def old_names(old: str, *places: str) -> Callable[[str], object]:
    """The `__getattr__` of a module that was: its names are in `places` now. Each use warns."""

    def __getattr__(name: str) -> object:  # noqa: N807
        if name == "__all__":
            return [name for place in places for name in vars(_module(place)) if not name.startswith("_")]
        if not name.startswith("__"):
            for place in places:
                _, _, renamed = place.partition(":")
                now, _, was = renamed.partition(":")
                theirs = name if not renamed else now if name == was else ""
                if theirs and hasattr(_module(place), theirs):
                    _warn(old, places, 3)
                    return getattr(_module(place), theirs)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return __getattr__


def _module(place: str) -> ModuleType:
    return import_module(place.partition(":")[0])


def _warn(old: str, places: Sequence[str], stacklevel: int) -> None:
    now = " and ".join(place.partition(":")[0] for place in places)
    warnings.warn(
        f"{old} is now {now}; import what you need from {_room(places[0])}",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def _room(module: str) -> str:
    """The package that a user imports from."""
    parts = module.split(".")
    own_names = len(parts) > 3 and parts[1] == "backends" and parts[2] != "http"
    return ".".join(parts[: 3 if own_names else 2])


def install() -> None:
    """Let Python ask the table when an import finds nothing else. Once is enough."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
