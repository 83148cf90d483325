"""Composed families over single numbers, dicts and pairs of lists: chains of steps, tables of cases, entries, matches.

A family is the tuple of its parts; a quarter of the families is held out.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from leyline.suites.micro.names import ARGUMENTS, LOCALS
from leyline.suites.micro.units import Unit, function_name, pick_new

# key, wording, statement on {r}; {n} is a number or an argument
STEPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("add", "add {n}", ("{r} += {n}", "{r} = {r} + {n}")),
    ("subtract", "subtract {n}", ("{r} -= {n}", "{r} = {r} - {n}")),
    ("multiply", "multiply by {n}", ("{r} *= {n}", "{r} = {r} * {n}")),
    ("halve", "halve and round down", ("{r} = {r} // 2", "{r} //= 2")),
    ("square", "square it", ("{r} = {r} * {r}",)),
    ("cap", "keep at most {n}", ("{r} = min({r}, {n})", "if {r} > {n}:\n    {r} = {n}")),
    ("floor", "keep at least {n}", ("{r} = max({r}, {n})", "if {r} < {n}:\n    {r} = {n}")),
    ("wrap", "take the remainder by {N}", ("{r} = {r} % {N}", "{r} %= {N}")),
    ("flip", "flip the sign", ("{r} = -{r}",)),
    ("unsign", "drop the sign", ("{r} = abs({r})",)),
    ("even", "add {n} if it is even", ("if {r} % 2 == 0:\n    {r} += {n}",)),
    ("odd", "subtract {n} if it is odd", ("if {r} % 2 == 1:\n    {r} -= {n}",)),
    ("large", "halve it if it is above {n}", ("if {r} > {n}:\n    {r} = {r} // 2",)),
    ("small", "double it if it is below {n}", ("if {r} < {n}:\n    {r} = {r} * 2",)),
    ("gap", "take the distance to {n}", ("{r} = abs({r} - {n})",)),
)
LABELS = tuple("red blue green gold gray cold warm hot low mid high small large tiny huge none some many".split())  # noqa: SIM905
TESTS: tuple[tuple[str, str, str], ...] = (
    ("below", "below {n}", "{a} < {n}"),
    ("most", "up to {n}", "{a} <= {n}"),
    ("above", "above {n}", "{a} > {n}"),
    ("least", "from {n} on", "{a} >= {n}"),
    ("multiple", "for multiples of {n}", "{a} % {n} == 0"),
    ("even", "for even numbers", "{a} % 2 == 0"),
    ("exact", "for exactly {n}", "{a} == {n}"),
)
ENTRY_CONDITIONS: tuple[tuple[str, str, str], ...] = (
    ("above", "with a value above {n}", "{y} > {n}"),
    ("least", "with a value of at least {n}", "{y} >= {n}"),
    ("below", "with a value below {n}", "{y} < {n}"),
    ("most", "with a value of at most {n}", "{y} <= {n}"),
    ("even", "with an even value", "{y} % 2 == 0"),
    ("odd", "with an odd value", "{y} % 2 == 1"),
    ("differs", "with a value other than {n}", "{y} != {n}"),
    ("before", "with a key before '{w}'", "{x} < '{w}'"),
    ("after", "with a key after '{w}'", "{x} > '{w}'"),
    ("not-key", "with a key other than '{w}'", "{x} != '{w}'"),
)
ENTRY_RESULTS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("sum", "the sum of the values of the entries of {a} {p}", "I", "0", "{r} += {v}", "{r}"),
    ("count", "the number of entries of {a} {p}", "I", "0", "{r} += 1", "{r}"),
    ("keys", "the sorted keys of the entries of {a} {p}", "LS", "[]", "{r}.append({x})", "sorted({r})"),
    ("values", "the sorted values of the entries of {a} {p}", "L", "[]", "{r}.append({v})", "sorted({r})"),
    ("dict", "a dict of the entries of {a} {p}", "D", "{{}}", "{r}[{x}] = {v}", "{r}"),
    (
        "join",
        "the sorted keys of the entries of {a} {p}, joined by '{s}'",
        "S",
        "[]",
        "{r}.append({x})",
        "'{s}'.join(sorted({r}))",
    ),
    ("max", "the largest value of the entries of {a} {p}, or {n2}", "I", "{n2}", "{r} = max({r}, {v})", "{r}"),
    ("pairs", "the number of letters in the keys of {a} {p}", "I", "0", "{r} += len({x})", "{r}"),
)
VALUE_CHANGES: tuple[tuple[str, str, str], ...] = (
    ("plain", "", "{y}"),
    ("plain", "", "{y}"),
    ("times", ", with values times {n3}", "{y} * {n3}"),
    ("plus", ", with values increased by {n3}", "{y} + {n3}"),
    ("less", ", with values reduced by {n3}", "{y} - {n3}"),
    ("negated", ", with values negated", "-{y}"),
    ("halved", ", with values halved and rounded down", "{y} // 2"),
)
MATCHES: tuple[tuple[str, str, str], ...] = (
    ("products", "the product", "{x} * {y}"),
    ("sums", "the sum", "{x} + {y}"),
    ("differences", "the first minus the second", "{x} - {y}"),
    ("opposites", "the second minus the first", "{y} - {x}"),
    ("larger", "the larger one", "max({x}, {y})"),
    ("smaller", "the smaller one", "min({x}, {y})"),
    ("distances", "the distance", "abs({x} - {y})"),
    ("firsts", "the first", "{x}"),
    ("seconds", "the second", "{y}"),
)
MATCH_CONDITIONS: tuple[tuple[str, str, str], ...] = (
    ("any", "", ""),
    ("rising", " where the second is larger", "{y} > {x}"),
    ("falling", " where the first is larger", "{x} > {y}"),
    ("differ", " that differ", "{x} != {y}"),
    ("same", " that are equal", "{x} == {y}"),
    ("above", " whose sum is above {n}", "{x} + {y} > {n}"),
    ("below", " whose sum is below {n}", "{x} + {y} < {n}"),
    ("both", " where both are at least {n}", "{x} >= {n} and {y} >= {n}"),
    ("either", " where one of them is above {n}", "{x} > {n} or {y} > {n}"),
)
MATCH_RESULTS: tuple[tuple[str, str, str, str, str], ...] = (
    ("list", "List {v} for each pair of matching items of {a} and {b}{c}.", "L", "[]", "{r}.append({e})"),
    ("sum", "Add up {v} for each pair of matching items of {a} and {b}{c}.", "I", "0", "{r} += {e}"),
    (
        "largest",
        "Largest of {v} over the pairs of matching items of {a} and {b}{c}, at least {n2}.",
        "I",
        "{n2}",
        "{r} = max({r}, {e})",
    ),
    (
        "front",
        "List {v} for each pair of matching items of {a} and {b}{c}, last pair first.",
        "L",
        "[]",
        "{r}.insert(0, {e})",
    ),
    ("count", "Count the pairs of matching items of {a} and {b}{c}.", "I", "0", "{r} += 1"),
)
Places = dict[str, object]
Built = tuple[str, list[str], str, list[str]]


def draw_parts(rng: random.Random) -> tuple[str, ...]:
    """The names of the parts; the family is their path."""
    form = rng.choice(("steps", "steps", "cases", "entries", "matches"))
    if form == "steps":
        steps = [rng.choice(STEPS)[0] for _ in range(rng.choice((2, 3, 3, 4)))]
        return (form, *steps)
    if form == "cases":
        tests = [rng.choice(TESTS)[0] for _ in range(rng.choice((1, 2, 2, 3)))]
        return (form, rng.choice(("label", "amount")), *tests)
    if form == "entries":
        return (form, *(rng.choice(t)[0] for t in (ENTRY_RESULTS, ENTRY_CONDITIONS, VALUE_CHANGES)))
    return (form, *(rng.choice(t)[0] for t in (MATCH_RESULTS, MATCHES, MATCH_CONDITIONS)))


def build(rng: random.Random, used: set[str], parts: tuple[str, ...], first: str | None = None) -> Unit:
    """A function of the family; `first` names its first argument."""
    taken: set[str] = set()
    name = function_name(rng, used)
    k, j = rng.randint(2, 9), rng.randint(1, 12)
    p: Places = {
        "s": rng.choice("-+*/:~#_="),
        "w": rng.choice("bcdefg"),
        "n": k,
        "N": k,
        "n2": j,
        "n3": rng.randint(2, 9),
    }
    kinds = {"steps": "II", "cases": "II", "entries": "DI", "matches": "LL"}[parts[0]]
    for place, kind in zip("ab", kinds, strict=True):
        p[place] = first if first and place == "a" else pick_new(rng, ARGUMENTS[kind], taken)
    for place in "xyrt":
        p[place] = pick_new(rng, LOCALS[place], taken)
    p["K"], p["M"] = k, k + rng.randint(2, 9)
    forms: dict[str, Callable[[random.Random, tuple[str, ...], Places], Built]] = {
        "steps": _steps,
        "cases": _cases,
        "entries": _entries,
        "matches": _matches,
    }
    doc, arguments, result, body = forms[parts[0]](rng, parts[1:], p)
    types = [kinds["ab".index(a)] for a in arguments]
    names = [str(p[a]) for a in arguments]
    lines = (f"def {name}({', '.join(names)}):", f'    """{doc}"""', *(f"    {line}" for line in body))
    text = "\n".join(body)
    variables = (*names, *(str(p[n]) for n in "xyrt" if f"{p[n]}" in text))
    family = "/".join(parts)
    constants = (k, j, int(str(p["M"])))
    return Unit("function", name, family, lines, tuple(types), result, tuple(names), variables, constants)


def _named(table: tuple[tuple[str, ...], ...], key: str) -> tuple[str, ...]:
    return next(row for row in table if row[0] == key)


def _steps(rng: random.Random, parts: tuple[str, ...], p: Places) -> Built:
    words, body, arguments = [], [f"{p['r']} = {p['a']}"], ["a"]
    for key in parts:
        _, wording, forms = next(s for s in STEPS if s[0] == key)
        number: object = rng.randint(2, 12)
        if "{n}" in wording and "b" not in arguments and rng.random() < 0.4:
            arguments.append("b")
            number = p["b"]
        places = {**p, "n": number, "N": rng.randint(3, 12)}
        words.append(wording.format(**places))
        body += rng.choice(forms).format(**places).split("\n")
    opening = rng.choice(("Start with {a}: ", "Take {a}, then ", "From {a}: ")).format(**p)
    doc = opening + ", ".join(words[:-1]) + (", and " if len(words) > 1 else "") + words[-1] + "."
    return doc, arguments, "I", [*body, f"return {p['r']}"]


def _cases(rng: random.Random, parts: tuple[str, ...], p: Places) -> Built:
    labels = rng.sample(LABELS, len(parts))
    numbers = sorted(rng.sample(range(1, 20), len(parts)))
    words, body = [], []
    for index, key in enumerate(parts[1:]):
        _, wording, test = _named(TESTS, key)
        places = {**p, "n": numbers[index] + 1}
        value = f"'{labels[index]}'" if parts[0] == "label" else f"{p['a']} * {rng.randint(2, 9)}"
        words.append(f"{value} {wording.format(**places)}")
        body += [f"if {test.format(**places)}:", f"    return {value}"]
    rest = f"'{labels[-1]}'" if parts[0] == "label" else f"{p['a']} + {rng.randint(1, 12)}"
    opening = rng.choice(("For {a}: ", "Classify {a}: ", "Depending on {a}, return ")).format(**p)
    doc = opening + ", ".join(words) + f", else {rest}; the first case that fits counts."
    return doc, ["a"], "S" if parts[0] == "label" else "I", [*body, f"return {rest}"]


def _entries(rng: random.Random, parts: tuple[str, ...], p: Places) -> Built:
    _, wording, result, start, step, final = _named(ENTRY_RESULTS, parts[0])
    _, phrase, condition = _named(ENTRY_CONDITIONS, parts[1])
    _, change, value = _named(VALUE_CHANGES, parts[2])
    arguments = ["a"]
    if "{n}" in condition and rng.random() < 0.5:
        arguments.append("b")
        p["n"] = p["b"]
    if "{v}" not in step:
        change = ""
    p["v"] = value.format(**p)
    doc = rng.choice(("Return ", "Give ")) + wording.replace("{p}", phrase).format(**p) + change.format(**p) + "."
    x, y = p["x"], p["y"]
    inner = [f"if {condition.format(**p)}:", "    " + step.format(**p)]
    if rng.random() < 0.2:
        inner = [f"if not ({condition.format(**p)}):", "    continue", step.format(**p)]
    loop = [f"for {x}, {y} in {p['a']}.items():"]
    if rng.random() < 0.25:
        loop, inner = [f"for {x} in {p['a']}:"], [f"{y} = {p['a']}[{x}]", *inner]
    body = [f"{p['r']} = {start.format(**p)}", *loop, *(f"    {i}" for i in inner), f"return {final.format(**p)}"]
    return doc, arguments, result, body


def _matches(rng: random.Random, parts: tuple[str, ...], p: Places) -> Built:
    _, wording, result, start, step = _named(MATCH_RESULTS, parts[0])
    _, what, value = _named(MATCHES, parts[1])
    _, phrase, condition = _named(MATCH_CONDITIONS, parts[2])
    p["e"] = value.format(**p)
    doc = wording.format(**{**p, "v": what, "c": phrase.format(**p)})
    x, y = p["x"], p["y"]
    inner = [step.format(**p)]
    if condition:
        inner = [f"if {condition.format(**p)}:", "    " + inner[0]]
    loop = [f"for {x}, {y} in zip({p['a']}, {p['b']}):"]
    if rng.random() < 0.3:
        t = p["t"]
        loop = [f"for {t} in range(min(len({p['a']}), len({p['b']}))):"]
        inner = [f"{x} = {p['a']}[{t}]", f"{y} = {p['b']}[{t}]", *inner]
    body = [f"{p['r']} = {start.format(**p)}", *loop, *(f"    {i}" for i in inner), f"return {p['r']}"]
    return doc, ["a", "b"], result, body
