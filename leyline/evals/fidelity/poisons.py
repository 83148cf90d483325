"""The suite of poison probes: settings that a chat model reads back, and code that a debugging agent repairs."""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Sequence

from leyline.directives import Message
from leyline.evals.fidelity.poison import PoisonProbe, says
from leyline.suites import micro
from leyline.suites.spec import FIRST_SEED

KINDS = ("corrected", "cut")
"""corrected: another value stands in the place of the removed one; cut: the whole output went."""
CUT = "[output removed]"
BEHIND = (1, 4, 16)
"""How many log lines stand between the settings and the question."""

_NAMES = (
    "port retries timeout workers batch limit threads shards replicas backlog depth quota window offset budget pages"
)
_SERVICES = "billing search mail login cache queue report upload index audit"
_DONE = "queued started finished checked copied moved closed opened skipped merged"
_ROWS = 6


def settings_probe(seed: int) -> PoisonProbe:
    """A conversation with a chat model: a listing of settings, log lines behind it, a question for one value.

    Kinds and lengths take turns. A value has four digits, and no digit at the same place in both.
    """
    random_ = random.Random(f"poison/{seed}")
    kind, lines = KINDS[seed % len(KINDS)], BEHIND[seed // len(KINDS) % len(BEHIND)]
    service = random_.choice(_SERVICES.split())
    names = [f"{service}_{name}" for name in random_.sample(_NAMES.split(), _ROWS)]
    asked = random_.choice(names)
    removed = _digits(random_, "")
    right = _digits(random_, removed)
    others = {name: _digits(random_, removed, right) for name in names}
    before = "\n".join(f"{name} = {removed if name == asked else others[name]}" for name in names)
    after = "\n".join(f"{name} = {right if name == asked else others[name]}" for name in names)
    log = "\n".join(f"step {n}: {random_.choice(_DONE.split())}" for n in range(1, lines + 1))
    output = f"Output of `cat {service}.conf`:\n{{}}\nEnd of the file."
    question = f"What is the value of {asked}? Answer with the number alone."
    messages: list[Message] = [
        {"role": "user", "content": f"Read the settings of the {service} service."},
        {"role": "assistant", "content": f"cat {service}.conf"},
        {"role": "user", "content": output.format(before)},
        {"role": "assistant", "content": f"I have read the value of {asked} and of the others. ./run {service}"},
        {"role": "user", "content": f"Output of `./run {service}`:\n{log}"},
        {"role": "assistant", "content": "The run is over."},
        {"role": "user", "content": question},
    ]
    edited = output.format(after) if kind == "corrected" else CUT
    shown = None if kind == "cut" else right
    return PoisonProbe(f"settings-{seed}", kind, messages, 2, {"role": "user", "content": edited}, removed, shown)


def _digits(random_: random.Random, *others: str) -> str:
    """Four digits, none of which stands at the same place in one of `others`."""
    digits = []
    for place in range(4):
        taken = {other[place] for other in others if other}
        digits.append(random_.choice([d for d in "123456789" if d not in taken]))
    return "".join(digits)


def repair_probe(seed: int, split: str = "seen") -> PoisonProbe | None:
    """A conversation of the scripted agent, cut before it repairs a line that it saw some messages ago.

    In the recording, the view of that line names a variable differently; the edit shows it as it is in the file, or
    cuts the view. The repair that is due spells the name, and nothing else in the conversation does. None where no
    repair of the task is of that kind, as in most.
    """
    from leyline.suites.micro.rollout import attempt

    done = attempt(micro.make_task(FIRST_SEED + seed, "long", split))
    return _of_repair(list(done.messages), done.task.id, KINDS[seed % len(KINDS)])


def _of_repair(messages: Sequence[Message], task: str, kind: str) -> PoisonProbe | None:
    """The first repair of an episode that makes a probe, or None."""
    for index, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            if call["function"]["name"] != "edit":
                continue
            code = json.loads(call["function"]["arguments"])["new_code"]
            for name in dict.fromkeys(re.findall(r"[a-z]{4,}", code)):
                if name not in _names():  # a word of the language is guessed, not read
                    continue
                place = _only(messages[:index], name)
                if place is None or place > index - 4:
                    continue
                view = str(messages[place]["content"])
                if not says(view, name):  # only a part of a longer name
                    continue
                other = _unused(messages, len(name), task)
                wrong = re.sub(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", other, view)
                served = [*messages[:place], {**messages[place], "content": wrong}, *messages[place + 1 : index]]
                edited = {**messages[place], "content": view if kind == "corrected" else CUT}
                shown = None if kind == "cut" else name
                probe = PoisonProbe(f"{task}-{index}", kind, served, place, edited, other, shown, micro.TOOLS)
                if len(view) <= len(wrong):
                    return probe
    return None


def _only(messages: Sequence[Message], name: str) -> int | None:
    """The one message that holds `name`, where that is an output."""
    word = re.compile(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])")
    places = [k for k, m in enumerate(messages) if word.search(str(m.get("content") or "") + str(m.get("tool_calls")))]
    return places[0] if len(places) == 1 and messages[places[0]]["role"] == "tool" else None


def _unused(messages: Sequence[Message], least: int, task: str) -> str:
    """A name of the suite's own, at least so long, that the conversation does not hold."""
    text = str(messages)
    fitting = sorted(word for word in _names() if len(word) >= least and word not in text)
    return random.Random(f"poison/{task}").choice(fitting)


@functools.cache
def _names() -> frozenset[str]:
    """The names that generated programs are made of."""
    from leyline.suites.micro.names import ARGUMENTS, LOCALS, NOUNS

    return frozenset(w for words in (*ARGUMENTS.values(), *LOCALS.values(), NOUNS) for w in words if w.isalpha())
