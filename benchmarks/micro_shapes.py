"""How much of the unseen split has a shape that training code has too.

    python benchmarks/micro_shapes.py --units 200000 --tasks 300

The shape of a function is its syntax tree without docstring, with names numbered in order and constants reduced to
their type. A held-out family may share it with one that is not (`{x} > {q}` and `{x} > 0`); then its code is not new,
only what it is asked to do. Prints, by kind of family, how many of the bugs of unseen tasks are in such a unit.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import json
import random
from collections import Counter

from leyline.suites.micro import make_task
from leyline.suites.micro.catalogue import draw_unit
from leyline.suites.micro.units import Unit

KEPT = {*dir(builtins), *dir(list), *dir(dict), *dir(str)}
FIRST_SEED = 2_000_000


def shape(unit: Unit) -> str:
    tree = ast.parse("\n".join(unit.lines))
    names: dict[str, str] = {}

    def numbered(name: str) -> str:
        return name if name in KEPT else names.setdefault(name, f"n{len(names)}")

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.name = numbered(node.name)
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.arg):
            node.arg = numbered(node.arg)
        elif isinstance(node, ast.Name):
            node.id = numbered(node.id)
        elif isinstance(node, ast.Attribute):
            node.attr = numbered(node.attr)
        elif isinstance(node, ast.Constant) and not isinstance(node.value, bool):
            node.value = type(node.value).__name__
    return ast.dump(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=200_000, help="training units to compare with")
    parser.add_argument("--tasks", type=int, default=300, help="unseen tasks of level short")
    args = parser.parse_args()
    rng = random.Random(0)
    shapes: set[str] = set()
    recent: list[Unit] = []
    for _ in range(args.units):
        unit = draw_unit(rng, set(), [u for u in recent if u.kind == "function"], "train")
        if unit is not None:
            recent = [*recent[-4:], unit]
            shapes.add(shape(unit))
    bugs: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + args.tasks):
        task = make_task(seed, "short", "unseen")
        units = {unit.name: unit for unit in task.program}
        for bug in task.bugs:
            kind = bug.family.replace("-", "/").partition("/")[0]
            bugs[kind] += 1
            shared[kind] += shape(units[bug.unit]) in shapes
    rows = {kind: {"bugs": bugs[kind], "shared": shared[kind]} for kind in sorted(bugs)}
    total = {"bugs": bugs.total(), "shared": shared.total(), "share": round(shared.total() / bugs.total(), 3)}
    print(json.dumps({"training_shapes": len(shapes), "total": total, "kinds": rows}, indent=1))


if __name__ == "__main__":
    main()
