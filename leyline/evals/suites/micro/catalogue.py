"""Every program family, and which of them training never sees."""

from __future__ import annotations

import random
from typing import Literal

from leyline.evals.suites.micro.families import classes_basic, functions_basic, functions_unseen, wrappers
from leyline.evals.suites.micro.families.dsl import parse
from leyline.evals.suites.micro.units import Unit, make_class, make_function, make_wrapper

Split = Literal["seen", "unseen", "train"]

SEEN_FUNCTIONS = parse(functions_basic.TEMPLATES, "basic")
UNSEEN_FUNCTIONS = parse(functions_unseen.TEMPLATES, "unseen")
WRAPPERS = parse(wrappers.TEMPLATES, "wrapper")
CLASSES = tuple((f"class-{i:02d}", template) for i, template in enumerate(classes_basic.CLASSES))
UNSEEN = frozenset(t.family for t in UNSEEN_FUNCTIONS)


def draw_unit(rng: random.Random, used: set[str], above: list[Unit], split: Split) -> Unit | None:
    """The next unit of a module whose units so far are `above`; None when the draw cannot be used there."""
    x = rng.random()
    if x < 0.12:
        family, template = rng.choice(CLASSES)
        return make_class(rng, used, template, family)
    if x < 0.45 and above:
        helper = rng.choice(above)
        fitting = [t for t in WRAPPERS if t.types[0] == helper.result]
        return make_wrapper(rng, used, rng.choice(fitting), helper) if fitting else None
    if split == "unseen" and rng.random() < 0.5:
        return make_function(rng, used, rng.choice(UNSEEN_FUNCTIONS))
    return make_function(rng, used, rng.choice(SEEN_FUNCTIONS))
