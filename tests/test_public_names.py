"""The public surface: these names, one level deep, and an import that costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

import leyline
from leyline._moved import moved
from leyline.directives import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "leyline"

# What a user may import, and from where. A list of its own: a name that goes or comes shows.
ROOMS = {
    "leyline": """
        __version__ Directive DROP Editor EditScript LeylineError load_policy MessageEdit Mode Policy
        Receipt rule Session transport truncate wrap
    """,
    "leyline.directives": """
        apply_edits BackendError canonical Choice choose Costs CostsError diff Directive
        DirectiveError EditError EditScript explain Explanation EXPLANATIONS Fallback find_script
        FoundEdit Json JsonMapping JsonObject LeylineError Link Load Message MessageEdit Mode Outcome
        place Placed PROTOCOL Receipt Rendered Reusable reusable Segment Site Splice token_edits token_script
        undeclared_edits WireError WireRequest
    """,
    "leyline.policies": """
        append_erratum at_arrival BasePolicy Call calls ChangePolicy clear_over cost_aware dedupe DROP
        drop_failed drop_stale freeze is_observation keep_all keep_last list_policies load_policy
        observations Policy policy_edits PolicyError PolicyInfo protect redact rule RuleContext
        RulePolicy then TOOLS truncate truncate_older_than when with_mode
    """,
    "leyline.dialects": """
        detect Dialect DialectError DIALECTS Item Placed read Reading Written
    """,
    "leyline.rendering": """
        parse_output ParsedOutput Renderer RenderingError TextRenderer TokenRenderer
    """,
    "leyline.models": """
        cache_dir fetch fetchable load_renderer model_folder ModelError ModelNotFoundError names PackError resolve
        tokenizer_file
    """,
    "leyline.backends": """
        Backend BackendError Capabilities ContextOverflowError Gate GatedBackend GateError Held
        MockBackend MockRequest Purged Sampling tool_call Turn TurnInput Usage
    """,
    "leyline.backends.conformance": """
        CHAT_CHECKS ConformanceError Rig run_conformance TOKEN_CHECKS
    """,
    "leyline.backends.local": """
        LocalBackend
    """,
    "leyline.backends.openai": """
        OpenAIBackend
    """,
    "leyline.backends.sglang": """
        Launch LaunchError plan_launch ServerFacts SGLangBackend UnsupportedVersionError
    """,
    "leyline.backends.simulated": """
        RadixCache RadixError SimulatedBackend
    """,
    "leyline.harness": """
        AgentResult CommandLimits DEFAULT_TOOLS DiskWorkspace EditPlan Editor EditorReport EditorTurn Evaluation
        Event FilesTask HarnessError InputError Ledger LedgerError Limits MemoryWorkspace
        NoFileError Origin read_trajectory run_agent Sandbox SandboxError Session SessionTurn Tool
        ToolBox ToolError ToolResult TOOLS Totals Trajectory TrajectoryError TrajectoryWriter
        Workspace WorkspaceError WrapError WrapReport WrapTurn
    """,
    "leyline.suites": """
        Attempt load_suite Suite suite_names SuiteError SUITES SuiteSpec TaskInfo
    """,
    "leyline.suites.micro": """
        Bug describe Document documents episode export_debug_gym Level LEVELS make_task MicroTask
        Oracle SPLITS system_prompt TaskError TOOLS user_prompt write
    """,
    "leyline.evals": """
        Arm ArmError assemble ConfigError EvalConfig Journal JournalError load_records Report
        ReportError run_eval Summary TrialKey TrialOutcome TrialRecord TurnRecord write_report Written
    """,
    "leyline.evals.fidelity": """
        by_edits by_margin FidelityError FidelityRecord FORMAT read_records recommend Row rows RULE
        Verdict
    """,
    "leyline.evals.replay": """
        Bucket BUILTIN_POLICIES by_turn FORMAT iter_trajectories load_trajectories read_records
        RecordedBackend Recording replay replay_together ReplayError ReplayPlan ReplayRecord Row run_plan Setting
        summarise TraceError
    """,
    "leyline.evals.report": """
        build Report ReportError write_report Written
    """,
    "leyline.evals.stats": """
        cluster_ratio ClusterBootstrap design_effect detectable_effect holm Interval mcnemar Paired
        paired_power paired_trials percentile Ratio sign_flip sign_test solve_rate StatsError wilson
    """,
}

# Packages of ours whose modules are nobody's business but their own room's.
INSIDE = {
    "leyline.backends.http",
    "leyline.backends.sglang.client",
    "leyline.backends.sglang.plugin",
    "leyline.commands",
    "leyline.evals.trials",
    "leyline.harness.adapters",
    "leyline.harness.editor",
    "leyline.harness.proxy",
    "leyline.harness.sandbox",
    "leyline.harness.session",
    "leyline.harness.tools",
    "leyline.harness.translate",
    "leyline.harness.verdict",
    "leyline.harness.workspace",
    "leyline.harness.wrap",
    "leyline.policies.builtin",
    "leyline.policies.combinators",
    "leyline.policies.reading",
    "leyline.suites.debug_gym",
    "leyline.suites.micro.families",
    "leyline.suites.swebench",
}


@pytest.mark.parametrize("room", ROOMS)
def test_the_public_names_are_these_and_all_exist(room: str) -> None:
    if room == "leyline.backends.local":
        pytest.importorskip("torch", reason="the local backend needs torch")
    module = import_module(room)
    assert set(module.__all__) == set(ROOMS[room].split())
    assert len(module.__all__) == len(set(module.__all__))
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))


def test_every_package_is_a_room_or_stands_inside_one() -> None:
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert packages == {*ROOMS, *INSIDE}


def imported(source: str) -> Iterator[str]:
    """The modules of leyline that a program imports from, and what it imports where that is a package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "leyline")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "leyline":
            yield str(node.module)


def programs() -> Iterator[tuple[str, str]]:
    """Every program that a user is shown, as (where, source)."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for number, block in enumerate(re.findall(r"^```(?:python|text)\n(.*?)^```", text, re.M | re.S)):
            if "import" in block and "leyline" in block:
                yield f"{page.name}-{number}", block
    for path in sorted((ROOT / "examples").glob("*.py")):
        yield path.name, path.read_text(encoding="utf-8")


SHOWN = dict(programs())


@pytest.mark.parametrize("where", SHOWN)
def test_a_user_imports_from_one_room(where: str) -> None:
    """`leyline`, `leyline.ROOM` or the package of one backend; never a module inside."""
    try:
        modules = set(imported(SHOWN[where]))
    except SyntaxError:
        assert where not in [path.name for path in (ROOT / "examples").glob("*.py")]
        modules = set(re.findall(r"^\s*(?:from|import) (leyline[\w.]*)", SHOWN[where], re.M))  # shown, not run
    allowed = {room for room in ROOMS if room.count(".") < 2 or room.startswith("leyline.backends.")}
    modules = {m for m in modules if not m.startswith("leyline.harness.adapters.")}  # one module a harness
    assert modules <= allowed


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    parents = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }

    def ours(name: str) -> bool:
        return name == "LeylineError" or any(ours(base) for base in parents.get(name, []))

    real = {(name, base) for name, bases in parents.items() for base in bases if ours(base)}
    drawn: set[tuple[str, str]] = set()
    above: list[str] = []
    for indent, name in re.findall(r"^    ([│├└─ ]*)(\w+Error)\b", errors.__doc__ or "", re.M):
        depth = len(indent) // 4
        above[depth:] = [name]
        if depth:
            drawn.add((name, above[depth - 1]))
    assert drawn == real


def test_a_star_import_gives_exactly_them() -> None:
    namespace: dict[str, object] = {}
    exec("from leyline import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(ROOMS["leyline"].split())


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"leyline.*nothing"):
        _ = leyline.nothing  # type: ignore[attr-defined]


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    show = f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import leyline", {"openai", "torch", "transformers", "sglang", "typer", "httpx", "pydantic"}),
        ("import leyline; leyline.Session; leyline.rule; leyline.wrap", {"openai", "torch", "transformers", "typer"}),
        ("import leyline.harness", {"openai", "torch", "transformers", "typer", "sglang"}),
        ("import leyline.harness; leyline.harness.Session", {"openai", "torch", "transformers", "typer", "sglang"}),
        ("import leyline.backends.sglang", {"openai", "torch", "transformers", "sglang", "httpx", "pydantic"}),
        ("import leyline.backends.local, leyline.backends.openai", {"openai", "torch", "transformers", "httpx"}),
        ("import leyline.models, leyline.rendering", {"torch", "transformers", "tokenizers", "jinja2"}),
        ("import leyline.evals, leyline.suites", {"openai", "torch", "transformers", "httpx", "matplotlib", "scipy"}),
    ],
)
def test_importing_is_light(code: str, heavy: set[str]) -> None:
    loaded = loaded_after(code)
    assert "leyline" in loaded
    assert not loaded & heavy


# Modules by their names of before, and what the docs and scripts outside took from them.
OLD = {
    "leyline.backends.base": "Backend BackendError Capabilities ContextOverflowError Sampling TokenRenderer TurnInput",
    "leyline.backends.openai_reply": "Assembly CutShortError MalformedReplyError read_completion read_message",
    "leyline.backends.render": "Renderer RenderReport RenderingError",
    "leyline.backends.sglang.build": "ensure_secret",
    "leyline.backends.sglang.cache": "Controller",
    "leyline.backends.sglang.client": "SGLangBackend ServerFacts",
    "leyline.backends.sglang.entry": "register",
    "leyline.backends.sglang.integrity": "accounting attach_accounting",
    "leyline.backends.sglang.keys": "Keyring Space",
    "leyline.backends.sglang.mover": "Mover",
    "leyline.backends.sglang.ops": "Hit TreeOps all_agree",
    "leyline.backends.sglang.plan": "Plan make_plan",
    "leyline.backends.sglang.rope": "Rope",
    "leyline.backends.template": "ChatTemplate",
    "leyline.backends.toolcalls": "ParsedOutput parse_output",
    "leyline.evals.arms": "Arm ArmError parse_arm",
    "leyline.evals.assemble": "assemble",
    "leyline.evals.backends": "PlainBackend connect make_backend model_folder ModelError",
    "leyline.evals.cachesim": "SimulatedBackend",
    "leyline.evals.config": "ConfigError EvalConfig SuiteSpec",
    "leyline.evals.engine": "run_eval",
    "leyline.evals.journal": "Journal JournalError load",
    "leyline.evals.models": "ModelNotFoundError PackError cache_dir names resolve tokenizer_file",
    "leyline.evals.models.pack": "expand",
    "leyline.evals.records": "Outcome TrialKey TrialRecord TurnRecord config_digest",
    "leyline.evals.suites": "SUITES SuiteError TaskInfo load_suite",
    "leyline.evals.suites.base": "Attempt Suite SuiteError TaskInfo",
    "leyline.evals.suites.micro": "make_task write",
    "leyline.evals.suites.micro.catalogue": "draw_unit",
    "leyline.evals.suites.micro.documents": "documents episode",
    "leyline.evals.suites.micro.env": "MicroEnv",
    "leyline.evals.suites.micro.oracle": "Oracle",
    "leyline.evals.suites.micro.units": "Unit",
    "leyline.evals.textrender": "TextRenderer load_renderer _tokenizer",
    "leyline.evals.traces": "Trajectory answer_places load_trajectories",
    "leyline.harness.ledger": "Ledger LedgerError",
    "leyline.harness.sandbox": "HarnessError Limits Sandbox",
    "leyline.harness.session": "Session SessionTurn Totals",
    "leyline.harness.tools.base": "Evaluation Tool ToolResult",
    "leyline.harness.workspace": "DiskWorkspace MemoryWorkspace NoFileError Workspace WorkspaceError",
    "leyline.policies.history": "calls",
    "leyline.policies.text": "truncate",
}
# Those that stand where they stood, or are rooms now: no warning.
STILL = {
    "leyline.backends.gate": "Gate GatedBackend",
    "leyline.backends.mock": "MockBackend tool_call",
    "leyline.backends.openai": "OpenAIBackend",
    "leyline.backends.sglang": "SGLangBackend",
    "leyline.backends.sglang.launch": "plan_launch",
    "leyline.evals.replay": "Setting replay summarise",
    "leyline.evals.replay.recorded": "RecordedBackend",
    "leyline.evals.stats": "Interval Ratio StatsError cluster_ratio holm mcnemar solve_rate wilson",
    "leyline.harness.agent": "Event Limits run_agent",
    "leyline.harness.tasks": "FilesTask",
    "leyline.harness.trajectory": "TrajectoryWriter read_trajectory",
}


@pytest.mark.parametrize("module", OLD)
def test_an_old_name_still_works_and_says_where_it_is_now(module: str) -> None:
    if module.startswith("leyline.backends.sglang.") and not module.endswith("client"):
        pytest.importorskip("torch", reason="the plugin runs in a server, which has torch")
    for name in OLD[module].split():
        with pytest.warns(DeprecationWarning, match=rf"^{module} is now leyline\.[\w.]+"):
            exec(f"from {module} import {name}", {})


def test_an_old_module_warns_by_itself_and_is_no_copy() -> None:
    for name in [name for name in sys.modules if name.startswith("leyline.evals.models")]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match=r"leyline\.models; import what you need from leyline\.models"):
        old = import_module("leyline.evals.models")
    with pytest.warns(DeprecationWarning, match=r"^leyline\.evals\.models\.pack is now leyline\.models\.pack"):
        pack = import_module("leyline.evals.models.pack")
    with pytest.warns(DeprecationWarning, match="leyline"):
        assert old.PackError is pack.PackError is import_module("leyline.models").PackError


@pytest.mark.parametrize("module", STILL)
def test_a_name_that_stayed_does_not_warn(module: str) -> None:
    for name in STILL[module].split():
        exec(f"from {module} import {name}", {})


@pytest.mark.parametrize("module", sorted(old for old in moved() if not old.startswith("leyline.evals.commands")))
def test_every_line_of_the_table_leads_somewhere(module: str) -> None:
    assert all(find_spec(place.partition(":")[0]) for place in moved()[module])


@pytest.mark.parametrize(
    "module", ["leyline.nothing", "leyline.evals.nothing", "leyline.evals.journal.nothing", "leyline.evals.suites.no"]
)
def test_a_module_that_never_was_is_not_found(module: str) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning), pytest.raises(ModuleNotFoundError):
        import_module(module)
    with (
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),
        pytest.raises(ImportError, match="nothing"),
    ):
        exec("from leyline.evals.journal import nothing", {})


def test_an_old_script_may_still_put_its_own_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    client = import_module("leyline.backends.sglang.client")
    backend = import_module("leyline.backends.sglang.client.backend")
    monkeypatch.setattr(client, "find_renderer", lambda source: f"mine for {source}")
    info = {"model_path": "m", "version": "0", "max_req_input_len": 8}
    server = httpx.MockTransport(lambda request: httpx.Response(200, json=info))
    served = backend.SGLangBackend("http://fake", http_client=httpx.Client(transport=server))
    assert served.renderer == "mine for m"


def test_no_code_of_ours_uses_an_old_name() -> None:
    old = {*moved()} | {"leyline.harness.session", "leyline.harness.sandbox", "leyline.harness.workspace"}
    files = [
        path for folder in ("leyline", "benchmarks", "scripts", "training") for path in (ROOT / folder).rglob("*.py")
    ]
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imported(path.read_text(encoding="utf-8"))
        if any(module == name or module.startswith(f"{name}.") for name in moved()) or module in old
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("leyline.evals", "Outcome", "TrialOutcome"),
        ("leyline.evals.replay", "Trajectory", "Recording"),
        ("leyline.evals.replay", "Plan", "ReplayPlan"),
    ],
)
def test_a_name_that_stood_for_two_things_still_works(module: str, old: str, new: str) -> None:
    found = import_module(module)
    with pytest.warns(DeprecationWarning, match=f"{module}.{old} is called {new} now"):
        assert getattr(found, old) is getattr(found, new)
    assert old not in getattr(found, "__all__", ())


def test_a_class_is_told_from_others_by_its_name() -> None:
    """Names of what a newcomer meets: each stands once, but for the servers' plug-in, whose plan is its own."""
    told = {"Limits", "Task", "Session", "Trajectory", "Plan", "Outcome", "Report"}
    found: dict[str, list[str]] = {name: [] for name in told}
    for path in PACKAGE.rglob("*.py"):
        if "plugin" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name in told:
                found[node.name].append(path.relative_to(PACKAGE).as_posix())
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_an_old_module_does_not_take_the_place_of_a_name() -> None:
    """`leyline.evals.assemble` was a module and is a function; importing the old one left the module in its place."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import leyline.evals\n"
        "from leyline.evals.assemble import assemble as old\n"
        "assert leyline.evals.assemble is old and callable(old)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
