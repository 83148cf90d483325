"""An agent's session on a model in this process: old outputs are cut, and the rest of the cache is moved.

python examples/edit_a_session.py            # the bundled tiny model, on a CPU
python examples/edit_a_session.py MODEL_DIR  # a Hugging Face model of your own
"""

import sys
from pathlib import Path

from leyline import Session
from leyline.backends import Sampling
from leyline.backends.local import LocalBackend
from leyline.directives import Message
from leyline.models import resolve


def output(step: int) -> str:
    return "\n".join(f"{step}{line:03}: what a tool printed" for line in range(12))


def main(model: str | Path) -> None:
    backend = LocalBackend(model)
    print(f"{'policy':<42} {'mode':<9} {'prompt':>7} {'cached':>7} {'spliced':>8} {'prefilled':>10}  hit rate")
    for policy, mode in (
        ("keep_all", "amortize"),
        ("truncate_older_than(n=3, max_chars=80)", "forget"),
        ("truncate_older_than(n=3, max_chars=80)", "amortize"),
    ):
        session = Session(backend, policy, mode=mode, tenant=f"{policy} {mode}", sampling=Sampling(max_tokens=1))
        history: list[Message] = [{"role": "user", "content": "Make the tests pass."}]
        for step in range(6):
            session.turn(history)
            # The same answers in every session, so that the token counts can be compared.
            call = {"id": f"call{step}", "type": "function", "function": {"name": "eval", "arguments": "{}"}}
            history += [
                {"role": "assistant", "content": "", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"call{step}", "content": output(step)},
            ]
        session.turn(history)
        t = session.totals
        print(
            f"{policy:<42} {mode:<9} {t.prompt_tokens:>7} {t.prefix_tokens:>7} {t.spliced_tokens:>8} "
            f"{t.prefilled_tokens:>10}  {t.hit_rate:.1%}"
        )
    backend.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else resolve("tiny-mla"))
