"""The generated debugging tasks as a suite."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.directives.digest import config_digest
from leyline.harness.tasks import Episode
from leyline.suites import micro
from leyline.suites.micro.episodes import as_task
from leyline.suites.spec import FIRST_SEED
from leyline.suites.suite import SuiteError, TaskInfo


class MicroSuite:
    """Tasks with the seeds `first`, `first + 1`, ... of each level in turn.

    levels: short, long, xlong; one name, or several separated by commas. split: seen, or unseen (families that training
    never saw). count: how many tasks there are, of which an eval takes 20 unless told otherwise. first: the
    generator's first seed.
    """

    name = "micro"
    default_n = 20
    score = None

    def __init__(
        self,
        *,
        levels: str | Sequence[str] = "short,long",
        split: str = "seen",
        count: int = 2000,
        first: int = FIRST_SEED,
    ) -> None:
        named = levels.split(",") if isinstance(levels, str) else levels
        chosen = [str(level).strip() for level in named] if isinstance(named, Sequence) else [str(named)]
        for level in chosen or [""]:
            if level not in micro.LEVELS:
                raise SuiteError(f"micro has no level {level!r}; choose from {', '.join(micro.LEVELS)}")
        if split not in micro.SPLITS:
            raise SuiteError(f"micro has no split {split!r}; choose from {', '.join(micro.SPLITS)}")
        if not isinstance(count, int) or count < 1:
            raise SuiteError(f"micro needs a count of at least 1, not {count!r}")
        if not isinstance(first, int) or first < 0:
            raise SuiteError(f"micro needs a first seed of at least 0, not {first!r}")
        self._where: dict[str, tuple[int, str]] = {}
        self._split = split
        for index in range(count):
            level = chosen[index % len(chosen)]
            seed = first + index // len(chosen)
            self._where[f"micro-{level}-{split}-{seed:06d}"] = (seed, level)

    def tasks(self) -> Sequence[TaskInfo]:
        return [TaskInfo(name, {"level": level, "split": self._split}) for name, (_, level) in self._where.items()]

    def digest(self, task: str) -> str:
        made = self.make(task)
        return config_digest({"files": dict(made.files), "hidden": made.hidden, "prompt": micro.user_prompt(made)})

    def open(self, task: str, seed: int) -> Episode:
        """`seed` does not change the task; it is the sampling seed's affair."""
        return as_task(self.make(task)).open()

    def preflight(self) -> Sequence[str]:
        """Raises SuiteError or HarnessError where a repaired task is not found to be solved."""
        try_runner()
        return []

    def make(self, task: str) -> micro.MicroTask:
        """The generated task of this name. Raises SuiteError for a name that the suite does not have."""
        if task not in self._where:
            raise SuiteError(f"micro has no task {task!r} with these options")
        seed, level = self._where[task]
        return micro.make_task(seed, level, self._split)


def try_runner() -> None:
    """Test a repaired task in the sandbox as a trial would. Raises SuiteError or HarnessError when that goes wrong."""
    task = micro.make_task(FIRST_SEED)
    with as_task(task).open() as episode:
        for path, text in task.reference.items():
            episode.workspace.write(path, text)
        if (last := episode.probe()) is not None:
            raise SuiteError(
                f"the tests of a task do not pass in the sandbox although it is repaired: {last}; no trial would count "
                "(reinstall leyline-kv, and look at `leyline doctor`)"
            )
