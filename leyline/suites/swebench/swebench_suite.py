"""SWE-bench as a suite: the agent's work is a patch, and the verdict comes later from swebench's own graders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from leyline.directives import JsonObject
from leyline.directives.counts import count
from leyline.directives.digest import config_digest
from leyline.harness.sandbox.sandbox import CommandLimits, Sandbox
from leyline.harness.tasks import Episode
from leyline.harness.workspace.workspace import DiskWorkspace
from leyline.suites.repository import COMMIT, RepositoryTask
from leyline.suites.suite import SuiteError, TaskInfo
from leyline.suites.swebench.container import ContainerSandbox, engine_missing, image_files, image_of
from leyline.suites.swebench.grade import scoring_problems
from leyline.suites.swebench.repos import Repositories
from leyline.suites.swebench.rows import load_rows

ENVIRONMENTS = ("auto", "container", "checkout")
SCORES = ("docker", "here", "none")


@dataclass(frozen=True)
class SwebenchTask(RepositoryTask):
    """A row as a task. image: where its commands run; None runs them in the sandbox on this machine."""

    instance: str = ""
    image: str | None = None

    @property
    def id(self) -> str:  # type: ignore[override]
        return self.instance

    def workspace(self) -> DiskWorkspace:
        workspace = DiskWorkspace(self.folder, ignore=self._ignored(), readonly=self.protect)
        try:
            super().sandbox(workspace).run(COMMIT)
        except BaseException:
            workspace.close()
            raise
        return workspace

    def sandbox(self, workspace: DiskWorkspace) -> Sandbox:
        if self.image is None:
            return super().sandbox(workspace)
        return ContainerSandbox(workspace, self.image, limits=self.limits)

    def open(self) -> Episode:
        return _Episode(self)


class _Episode(Episode):
    """An episode that ends its container."""

    def close(self) -> None:
        if isinstance(self.sandbox, ContainerSandbox):
            self.sandbox.close()
        super().close()


class SwebenchSuite:
    """Rows of a data set.

    dataset: a .json, .jsonl or .parquet file, verified, lite, full, or a name of the Hugging Face hub; split: of a hub
    data set. repos: a folder of git repositories (OWNER__NAME) instead of clones from GitHub. environment: container
    runs the agent's commands in the row's image, checkout in the sandbox on this machine, auto in a container when
    Docker is there. score: docker has swebench build or pull the images and run the tests; here runs the row's own
    eval script in a checkout on this machine; none stops at the predictions.
    """

    name = "swebench"
    default_n = None

    def __init__(
        self,
        dataset: str,
        *,
        split: str = "test",
        repos: str | None = None,
        environment: Literal["auto", "container", "checkout"] = "auto",
        score: Literal["docker", "here", "none"] = "docker",
    ) -> None:
        for value, known, what in ((environment, ENVIRONMENTS, "environment"), (score, SCORES, "score")):
            if value not in known:
                raise SuiteError(f"swebench: {what} {value!r} is not one of {', '.join(known)}")
        self.dataset, self.split, self.score = dataset, split, score
        self.rows = load_rows(dataset, split)
        self.repositories = Repositories(repos)
        self._environment = environment
        self._docker: str | None = "not looked for"
        if environment != "checkout":
            self._docker = engine_missing()

    @property
    def in_container(self) -> bool:
        """Whether agents run in the rows' images."""
        return self._environment != "checkout" and self._docker is None

    def tasks(self) -> Sequence[TaskInfo]:
        return [TaskInfo(name, {"repo": row["repo"]}) for name, row in self.rows.items()]

    def digest(self, task: str) -> str:
        row = self.row(task)
        fields = ("repo", "base_commit", "problem_statement")
        return config_digest({**{field: row[field] for field in fields}, "container": self.in_container})

    def row(self, task: str) -> JsonObject:
        if task not in self.rows:
            raise SuiteError(f"{self.dataset} has no instance {task!r}")
        return self.rows[task]

    def open(self, task: str, seed: int) -> Episode:
        """The repository at the base commit, without its history; the seed does not change it."""
        row = self.row(task)
        with ExitStack() as stack:
            image = image_of(row) if self.in_container else None
            files = image_files(image) if image else self.repositories.checkout(row)
            folder = stack.enter_context(files)
            return SwebenchTask(
                folder,
                row["problem_statement"],
                instance=task,
                image=image,
                limits=CommandLimits(seconds=300, processes=512),
            ).open()

    def preflight(self) -> Sequence[str]:
        """Raises SuiteError when what the options ask for cannot work here, before any model is called."""
        if self._environment == "container" and self._docker is not None:
            raise SuiteError(f"environment=container: {self._docker}; use environment=checkout to run without")
        problems, notes = scoring_problems(self.rows.values(), self.score)
        if problems:
            raise SuiteError(
                f"scoring with score={self.score} cannot work here: {'; '.join(problems)}. Mend that, or pass "
                "--option score=none for predictions alone (leyline eval score RUN_DIR scores them later)"
            )
        where = "in the rows' images" if self.in_container else "in checkouts on this machine"
        return [f"agents run {where}", *notes, *self._clones()]

    def _clones(self) -> list[str]:
        if self.in_container:
            return []
        counts = Counter(row["repo"] for row in self.rows.values())
        absent = [repo for repo in counts if self.repositories.find(repo) is None]
        if not absent:
            return []
        shown = ", ".join(absent[:4]) + (", ..." if len(absent) > 4 else "")
        cloned = count(len(absent), "repository is", "repositories are")
        return [f"{cloned} cloned from github.com when a task needs {'it' if len(absent) == 1 else 'them'}: {shown}"]
