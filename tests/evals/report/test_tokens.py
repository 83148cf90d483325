import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from leyline.directives import Directive, EditScript, Mode
from leyline.evals.report.tokens import (
    PREFILLED,
    PREFIX,
    SPLICED,
    Mark,
    decode,
    follow_edits,
    segments,
    tokenizer_of,
)


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    """Every byte is a token, so a character of several bytes can be cut in two."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: k for k, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text).ids)


def receipt(prefix: int, *splices: tuple[int, int], approximate: int | None = None) -> dict[str, Any]:
    moved = [{"start": start, "end": end, "delta": 0, "seconds": 0.0} for start, end in splices]
    return {"prefix_tokens": prefix, "splices": moved, "approximate_from": approximate}


def test_each_token_has_the_state_of_the_receipt(letters: Tokenizer) -> None:
    text = "cached|gap|moved|more|moved again|new"
    found = segments(ids(letters, text), receipt(6, (11, 16), (22, 33)), [], letters)
    assert [(s.text, s.state) for s in found] == [
        ("cached", PREFIX),
        ("|gap|", PREFILLED),
        ("moved", SPLICED),
        ("|more|", PREFILLED),
        ("moved again", SPLICED),
        ("|new", PREFILLED),
    ]


def test_a_cut_inside_a_character_loses_nothing(letters: Tokenizer) -> None:
    text = "aé🙂z"
    for cut in range(len(ids(letters, text)) + 1):
        found = segments(ids(letters, text), receipt(cut), [], letters)
        assert "".join(s.text for s in found) == text


def test_edits_are_marked_where_they_stand_now(letters: Tokenizer) -> None:
    first = ids(letters, "head|a long old output|tail")
    second = ids(letters, "head|cut|tail|more")
    [cut] = [{"start": 5, "end": 22, "replacement": ids(letters, "cut"), "mode": "amortize"}]
    marks = follow_edits([], [cut], first, second, 1, letters)
    assert marks == [Mark(5, 8, 1, "amortize", 17, "a long old output")]
    third = ids(letters, "h|cut|tail|more")
    early = {"start": 1, "end": 4, "replacement": [], "mode": "forget"}
    marks = follow_edits(marks, [early], second, third, 2, letters)
    assert marks == [Mark(1, 1, 2, "forget", 3, "ead"), Mark(2, 5, 1, "amortize", 17, "a long old output")]
    found = segments(third, receipt(2), marks, letters)
    assert [(s.text, s.mark) for s in found] == [("h", None), ("", 0), ("|", None), ("cut", 1), ("|tail|more", None)]


def test_an_edit_of_an_edit_replaces_its_mark(letters: Tokenizer) -> None:
    source = ids(letters, "head|cut here|tail")
    target = ids(letters, "head||tail")
    marks = [Mark(5, 13, 1, "amortize", 40, "much")]
    gone = {"start": 5, "end": 13, "replacement": [], "mode": "amortize"}
    assert follow_edits(marks, [gone], source, target, 2, letters) == [Mark(5, 5, 2, "amortize", 8, "cut here")]


def test_a_directive_that_does_not_fit_the_prompt_marks_nothing(letters: Tokenizer) -> None:
    wrong = {"start": 0, "end": 4, "replacement": ids(letters, "xy"), "mode": "amortize"}
    assert follow_edits([], [wrong], ids(letters, "head tail"), ids(letters, "zz tail"), 1, letters) == []


@pytest.mark.parametrize("seed", range(40))
def test_marks_follow_random_scripts(letters: Tokenizer, seed: int) -> None:
    """Against a list in which every token carries the edit that wrote it."""
    rng = random.Random(seed)
    source: list[tuple[int, int | None]] = [(rng.randrange(97, 123), None) for _ in range(60)]
    marks: list[Mark] = []
    for turn in range(1, 6):
        directives, place = [], 0
        while place < len(source) - 8 and len(directives) < 3:
            start = place + rng.randrange(1, 12)
            end = min(start + rng.randrange(0, 8), len(source))
            if start >= len(source):
                break
            new = tuple(rng.randrange(97, 123) for _ in range(rng.randrange(1, 5)))
            directives.append(Directive(start, end, new, rng.choice(list(Mode))))
            place = end + 1
        tagged = list(source)
        for directive in reversed(directives):
            touched = {tag for _, tag in tagged[directive.start : directive.end] if tag is not None}
            tagged[directive.start : directive.end] = [
                (token, 1000 * turn + directive.start) for token in directive.replacement
            ]
            # An edit that was cut into, or written into, is no longer one run: it is forgotten.
            inside = directive.start == directive.end and 0 < directive.start < len(source)
            if inside and source[directive.start - 1][1] == source[directive.start][1]:
                touched.add(source[directive.start][1])
            tagged = [(token, None if tag in touched else tag) for token, tag in tagged]
        ids_before, ids_after = [t for t, _ in source], [t for t, _ in tagged]
        assert list(EditScript(tuple(directives)).apply(ids_before)) == ids_after
        as_json = [{"start": d.start, "end": d.end, "replacement": d.replacement, "mode": d.mode} for d in directives]
        marks = follow_edits(marks, as_json, ids_before, ids_after, turn, letters)
        written: dict[int, list[int]] = {}
        for position, (_, tag) in enumerate(tagged):
            if tag is not None:
                written.setdefault(tag, []).append(position)
        assert [(m.start, m.end) for m in marks] == [(p[0], p[-1] + 1) for p in written.values()]
        source = tagged + [(rng.randrange(97, 123), None) for _ in range(10)]


def test_a_bundled_model_brings_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("tiny-mla")
    assert tokenizer is not None
    assert decode(tokenizer, tokenizer.encode("def f(x): return x").ids) == "def f(x): return x"
    assert tokenizer_of("no such model") is None
    (tmp_path / "tokenizer.json").write_text("{}")
    assert tokenizer_of(str(tmp_path)) is None
