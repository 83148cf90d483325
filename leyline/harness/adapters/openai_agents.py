"""openai-agents: an edit policy as the input filter of a run. Needs `leyline-kv[openai-agents]`.

await Runner.run(agent, "Fix the bug.", run_config=RunConfig(call_model_input_filter=input_filter("drop_stale")))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from agents.run_config import CallModelData, ModelInputData

from leyline.directives import Mode
from leyline.harness.editor import Editor
from leyline.policies import Policy


def input_filter(
    policy: str | Policy = "keep_all", *, mode: Mode | str = Mode.AMORTIZE, editor: Editor | None = None
) -> Callable[[CallModelData[Any]], Awaitable[ModelInputData]]:
    """A filter for `RunConfig(call_model_input_filter=...)`; give one to all runs of a program.

    editor: where you want to ask for its report; else one is made of `policy` and `mode`. The filter does not learn
    what became of a request, so that an edit counts as made when it is sent.
    """
    made = editor or Editor(policy, mode=mode, owner="input_filter")

    async def edit(data: CallModelData[Any]) -> ModelInputData:
        given = data.model_data
        plan = await made.aplan(list(given.input), dialect="responses", model=data.agent.name)
        plan.served()
        return ModelInputData(input=plan.messages, instructions=given.instructions)

    return edit
