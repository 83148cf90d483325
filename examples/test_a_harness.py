"""Testing a harness and a policy without a model: a scripted backend, an agent loop, and what was sent.

python examples/test_a_harness.py
"""

from collections.abc import Mapping
from dataclasses import dataclass

from leyline import Session
from leyline.backends import MockBackend, tool_call
from leyline.harness import run_agent


@dataclass
class Output:
    text: str
    done: bool = False


class Task:
    """A toolbox and a task in one: `bash` prints a long listing, `submit` ends the run."""

    messages = ({"role": "user", "content": "Find the largest file."},)

    def call(self, name: str, arguments: Mapping[str, object]) -> Output:
        return Output("Submitted.", done=True) if name == "submit" else Output("a line of a listing\n" * 100)

    def solved(self) -> bool:
        return True


def main() -> None:
    backend = MockBackend([tool_call("bash", command="ls -l"), tool_call("bash", command="du -a"), tool_call("submit")])
    task = Task()
    result = run_agent(task, task, Session(backend, "truncate_older_than(n=1, max_chars=60)"))
    print(f"{result.outcome} in {result.turns} turns, {result.totals.edits} edit")
    sizes = [sum(len(message.get("content") or "") for message in request.messages) for request in backend.requests]
    print("characters sent, turn by turn:", sizes)
    assert sizes[2] < 2 * sizes[1], "the first listing must have been cut in the third request"


if __name__ == "__main__":
    main()
