from pathlib import Path
from typing import Any

import pytest

from leyline.evals.trials.arms import (
    SERVED,
    TRUNCATE,
    Arm,
    ArmError,
    check_arms,
    default_arms,
    default_models,
    parse_arm,
    resolve_arms,
)
from leyline.policies import PolicyError


def test_the_default_arms_are_six_and_a_control_for_each_model() -> None:
    arms = default_arms(["one", "two"])
    assert [arm.name for arm in arms[:7]] == [
        "keep_all (one)",
        "truncate (one)",
        "truncate+AMORTIZE (one)",
        "truncate+FORGET (one)",
        "frozen compaction (one)",
        "filter at arrival (one)",
        "unrotated control (one)",
    ]
    assert [arm.model for arm in arms] == ["one"] * 7 + ["two"] * 7
    assert [arm.control for arm in arms[:7]] == [*[False] * 6, True]
    assert arms[6].options == {"rotate": False}
    assert len({arm.digest() for arm in arms}) == 14
    check_arms(arms)


def test_a_server_has_no_unrotated_control() -> None:
    assert len(default_arms(["m"], backend="openai", url="http://localhost:1")) == 6


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("keep_all", {"name": "keep_all", "policy": "keep_all", "mode": "plain"}),
        (f"{TRUNCATE}@AMORTIZE", {"policy": TRUNCATE, "mode": "amortize", "name": f"{TRUNCATE}@AMORTIZE"}),
        ("mine=keep_last(n=3),seam=8,prewarm=true", {"name": "mine", "policy": "keep_last(n=3)", "seam": 8}),
        ('a=redact("x,y=z"),honest=true', {"policy": 'redact("x,y=z")', "honest": True}),
        ("b=rules/mine.py:cut@forget,options.page_size=16", {"policy": "rules/mine.py:cut", "mode": "forget"}),
        ("rules/mine.py:cut", {"name": "rules-mine.py:cut", "policy": "rules/mine.py:cut"}),
    ],
)
def test_an_arm_as_text(text: str, fields: dict[str, Any]) -> None:
    arm = parse_arm(text)
    assert {key: getattr(arm, key) for key in fields} == fields


def test_options_of_the_backend_are_json() -> None:
    assert parse_arm("a=keep_all,options.page_size=16,options.dtype=float32").options == {
        "page_size": 16,
        "dtype": "float32",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=keep_all,seam", "'seam' is not key=value"),
        ("a=keep_all,seam=-1", "seam: give at least 0"),
        ("a=keep_all@sometimes", "mode: give 'plain', 'amortize', 'forget' or 'auto'"),
        ("a=keep_all,speed=9", "speed: there is no such setting"),
    ],
)
def test_a_wrong_arm_is_named(text: str, message: str) -> None:
    with pytest.raises(ArmError, match=message):
        parse_arm(text)


def test_arms_are_checked_before_anything_runs(tmp_path: Path) -> None:
    arm = Arm(name="a")
    with pytest.raises(ArmError, match="two arms are called 'a'"):
        check_arms([arm, arm])
    with pytest.raises(ArmError, match="backend openai needs a server"):
        check_arms([Arm(name="a", backend="openai")])
    with pytest.raises(ArmError, match=r"needs options\.script"):
        check_arms([Arm(name="a", backend="mock")])
    with pytest.raises(ArmError, match="set OPENAI_API_KEY"):
        check_arms([Arm(name="a", backend="openai", url="http://localhost:1", options={"api_key": "secret"})])
    url = "http://localhost:1"
    with pytest.raises(ArmError, match="no arm uses the server http://localhost:1: --base-url needs --backend"):
        check_arms([Arm(name="a", url=url)])
    check_arms([Arm(name="a", url=url), Arm(name="b", url=url, backend="openai")])
    with pytest.raises(PolicyError):
        check_arms([Arm(name="a", policy="keep_al")])


def test_arms_of_a_file_are_texts_mappings_and_default() -> None:
    arms = resolve_arms(["keep_all", {"policy": "keep_last(n=2)", "mode": "forget", "seam": 4}], ["m"], backend="local")
    assert [(arm.name, arm.model, arm.mode, arm.seam) for arm in arms] == [
        ("keep_all", "m", "plain", 0),
        ("keep_last(n=2)", "m", "forget", 4),
    ]
    assert len(resolve_arms("default", ["m"])) == 7
    with pytest.raises(ArmError, match="an arm is a text or a mapping, not int"):
        resolve_arms([3], ["m"])


def test_an_arm_on_a_server_is_not_called_after_a_bundled_model() -> None:
    asked = ["keep_all,backend=sglang,url=http://h", {"backend": "mock"}, "keep_all", "keep_all,model=x,backend=sglang"]
    assert [arm.model for arm in resolve_arms(asked, [])] == [SERVED, "mock", default_models("local")[0], "x"]
    assert [arm.model for arm in resolve_arms(asked, ["named"])] == ["named", "named", "named", "x"]
    assert [arm.model for arm in resolve_arms("default", [], backend="sglang")] == [SERVED] * 6
    with pytest.raises(ArmError, match="--model NAME"):
        resolve_arms(["keep_all,backend=openai"], [])


def test_a_name_does_not_decide_a_trial_and_everything_else_does() -> None:
    base = Arm(name="a")
    assert base.digest() == Arm(name="b", control=True).digest()
    for change in ({"policy": "keep_last(n=1)"}, {"mode": "forget"}, {"seam": 1}, {"prewarm": True}, {"model": "x"}):
        assert Arm.model_validate({"name": "a", **change}).digest() != base.digest()
