"""The run directory: what is in it, what it is called, and the temporary folders that belong to it.

records.jsonl      one line a trial (see `journal`)
config.json        what was asked for last, the tasks it chose, the machine and the releases
trajectories/      one file a trial: ARM/TASK-SEED.jsonl
preds.json         swebench only: the patches
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from leyline.directives import JsonObject, LeylineError
from leyline.directives.digest import config_digest
from leyline.evals.trials.config import EvalConfig
from leyline.evals.trials.environment import machine, versions
from leyline.evals.trials.schedule import model_identity

CONFIG = "config.json"
FORMAT = "leyline-eval/1"
# What may change between two calls that go on with the same run.
_FREE = {"workers", "executor", "budget", "redo", "trajectories", "n", "slice", "filter"}


def default_directory(config: EvalConfig) -> Path:
    """`runs/SUITE-DIGEST`: the same command finds its own run again."""
    decides = {key: value for key, value in config.model_dump(mode="json").items() if key not in _FREE}
    decides["models"] = [model_identity(arm) for arm in config.arms]
    return Path("runs") / f"{config.suite.name.replace('/', '-').replace(':', '-')}-{config_digest(decides)[:8]}"


def write_config(directory: Path, config: EvalConfig, tasks: Sequence[str], trials: int) -> None:
    """Put `config.json` in place of an older one, in one step. trials: how many this configuration asks for."""
    data = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "tasks": list(tasks),
        "trials": trials,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "versions": versions(),
    }
    scratch = directory / f".{CONFIG}.tmp"
    scratch.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(directory / CONFIG)


def read_run_config(directory: Path) -> JsonObject:
    """The content of `config.json`; empty where there is none. Raises LeylineError for one that is not JSON."""
    try:
        found: JsonObject = json.loads((directory / CONFIG).read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LeylineError(f"{directory / CONFIG} cannot be read: {error}") from None
    return found


@contextmanager
def scratch_space(directory: Path) -> Iterator[Path]:
    """A folder for what the run's workers make in passing, emptied first: a killed run leaves its task folders there.

    To be used while the run directory's lock is held.
    """
    owner = config_digest({"run": str(directory.resolve()), "user": os.getuid()})
    parent = Path(tempfile.gettempdir())
    scratch = parent / f"leyline-eval-{owner}"
    _remove(scratch)
    scratch.mkdir(mode=0o700)
    try:
        yield scratch
    finally:
        _remove(scratch)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # a command locked a folder in it
        for path, folders, _ in os.walk(folder):
            for name in folders:
                below = Path(path, name)
                if not below.is_symlink():
                    below.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
