"""Where a server's time goes, forward pass by forward pass: a server that writes down each one.

    python benchmarks/passes.py serve PASSES.jsonl --model-path MODEL --port 30001 --radix-cache-backend leyline ...
    python benchmarks/traffic.py --url http://127.0.0.1:30001 ...
    python benchmarks/passes.py show PASSES.jsonl [--out results/speed/passes.json --model NAME --arms ARM ...]

`serve` starts `sglang.launch_server` with the options behind the file's name, and hooks timers into its scheduler.
One line a prefill pass: sequences (`real`, `ghosts`), tokens, prefix tokens, the attention path, whether a captured
graph ran; host milliseconds of scheduling, of the set-up and launches of its batch (`run_batch`, of it the forward's
`launch`), and of the plugin's steps; and the GPU's milliseconds from the forward's first kernel to its last (`gpu`).
Where PASSES_KERNELS=N, the kernels of every Nth pass are counted too, and the GPU's busy time is their sum; those
passes are left out of the times.
`show` prints means by phase; a flush of the cache begins a new phase, as an arm of traffic.py does.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FILE, _KERNELS = "PASSES_FILE", "PASSES_KERNELS"
_SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
_STEPS = {
    "leyline.backends.sglang.plugin.cache.Controller": ("plan", "admit", "stage", "commit", "report", "finish"),
    "leyline.backends.sglang.plugin.forward.ForwardHooks": ("_move", "prepared"),
}
"""The plugin's steps on the scheduler's thread; a step inside another counts in both."""
_OUTER = ("plan", "admit", "stage", "commit", "finish", "move", "prepared", "add_ghosts")
"""Those that are inside no other."""


class Recorder:
    """The timers of one scheduler process."""

    def __init__(self, path: str, kernels: int) -> None:
        self.file, self.every = Path(path), kernels
        self.phase = self.count = 0
        self.spent: defaultdict[str, float] = defaultdict(float)
        self.path: str | None = None
        self.open: deque[tuple[dict[str, Any], Any, Any]] = deque()

    def step(self, name: str) -> Any:
        """A hook that adds what it is around to the pass that comes next. Of scheduling only the last try counts: an
        idle scheduler tries all the time."""

        def hook(original: Any, *args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent = 1e3 * (time.perf_counter() - began)
                self.spent[name] = spent if name == "get_next_batch_to_run" else self.spent[name] + spent

        return hook

    def flushed(self, result: Any, *args: Any, **kwargs: Any) -> None:
        self.phase += 1

    def decompressing(self, name: str) -> Any:
        """A hook on what a path of MLA does in every layer."""

        def hook(result: Any, *args: Any, **kwargs: Any) -> None:
            self.path = name

        return hook

    def forward(self, original: Any, runner: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        import torch

        if not batch.forward_mode.is_extend():
            return original(runner, batch, *args, **kwargs)
        real = getattr(batch, "_leyline_real", None)
        lengths, prefixes = list(batch.extend_seq_lens_cpu), list(batch.extend_prefix_lens_cpu)
        ghosts = batch.batch_size - (real.fields["batch_size"] if real is not None else batch.batch_size)
        line: dict[str, Any] = {
            "phase": self.phase,
            "at": round(time.perf_counter(), 4),
            "real": batch.batch_size - ghosts,
            "ghosts": ghosts,
            "tokens": sum(lengths),
            "prefix": sum(prefixes),
        }
        self.path, self.count = None, self.count + 1
        profile = None
        if self.every and self.count % self.every == 0:
            from torch.profiler import ProfilerActivity

            torch.cuda.synchronize()
            profile = torch.profiler.profile(activities=[ProfilerActivity.CUDA])
            profile.__enter__()
        cuda = torch.cuda.is_available()
        first, last = (torch.cuda.Event(enable_timing=True) if cuda else None for _ in range(2))
        if first is not None:
            first.record()
        began = time.perf_counter()
        output = original(runner, batch, *args, **kwargs)
        self.spent["launch"] += 1e3 * (time.perf_counter() - began)
        if last is not None:
            last.record()
        line["graph"] = bool(getattr(output, "can_run_graph", False))
        line["path"] = self.path
        if profile is not None:
            torch.cuda.synchronize()
            profile.__exit__(None, None, None)
            line["kernels"] = _kernels(profile)
        self.open.append((line, first, last))
        return output

    def looped(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Around run_batch: its end closes a pass's line."""
        before = len(self.open)
        result = self.step("run_batch")(original, *args, **kwargs)
        if len(self.open) > before:
            self.open[-1][0]["host"] = {name: round(value, 3) for name, value in self.spent.items() if value}
        self.spent.clear()
        self.write()
        return result

    def write(self) -> None:
        while self.open and "host" in self.open[0][0]:
            line, first, last = self.open[0]
            if last is not None:
                if not last.query():
                    return
                line["gpu"] = round(first.elapsed_time(last), 3)
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self.open.popleft()


def _kernels(profile: Any) -> dict[str, Any]:
    """How many, how long together, and the longest kinds, milliseconds."""
    found = [e for e in profile.key_averages() if getattr(e, "self_device_time_total", 0)]
    top = sorted(found, key=lambda e: -e.self_device_time_total)[:12]
    return {
        "count": sum(e.count for e in found),
        "busy": round(sum(e.self_device_time_total for e in found) / 1e3, 3),
        "top": [[e.key[:70], e.count, round(e.self_device_time_total / 1e3, 3)] for e in top],
    }


def register() -> None:
    """The entry point of `serve`: in every process of the server, of which only a scheduler comes to the hooks."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    recorder = Recorder(os.environ[_FILE], int(os.environ.get(_KERNELS, "0")))
    around, after = HookType.AROUND, HookType.AFTER
    for name in ("process_input_requests", "get_next_batch_to_run", "process_batch_result"):
        HookRegistry.register(f"{_SCHEDULER}.{name}", recorder.step(name), around)
    HookRegistry.register(f"{_SCHEDULER}.run_batch", recorder.looped, around)
    HookRegistry.register(f"{_SCHEDULER}.flush_cache", recorder.flushed, after)
    HookRegistry.register("sglang.srt.model_executor.model_runner.ModelRunner._forward_raw", recorder.forward, around)
    mixin = "sglang.srt.model_executor.forward_batch_deepseek_mha_mixin.ForwardBatchDeepSeekMHAMixin"
    HookRegistry.register(f"{mixin}.fetch_mha_one_shot_kv_indices", recorder.decompressing("one shot"), after)
    HookRegistry.register(f"{mixin}.prepare_chunked_prefix_cache_info", recorder.decompressing("chunked"), after)
    if os.environ.get("PASSES_PLUGIN", "1") != "1":
        return
    for owner, names in _STEPS.items():
        module, _, kind = owner.rpartition(".")
        cls = getattr(importlib.import_module(module), kind)
        for name in names:
            setattr(cls, name, _wrap(getattr(cls, name), recorder.step(f"leyline.{name.strip('_')}")))
    forward = importlib.import_module("leyline.backends.sglang.plugin.forward")
    forward.add_ghosts = _wrap(forward.add_ghosts, recorder.step("leyline.add_ghosts"))  # type: ignore[attr-defined]


def _wrap(original: Any, hook: Any) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return hook(original, *args, **kwargs)

    return wrapped


def serve(path: str, args: list[str]) -> None:
    """Become the server. The hooks come through an entry point, as SGLang's plugins do."""
    folder = Path(tempfile.mkdtemp()) / "leyline_passes-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: leyline-passes\nVersion: 0\n")
    (folder / "entry_points.txt").write_text("[sglang.srt.plugins]\npasses = passes:register\n")
    paths = [str(folder.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, _FILE: str(Path(path).resolve()), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.execve(sys.executable, [sys.executable, "-m", "sglang.launch_server", *args], environ)


def summarise(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """One phase, or a part of one: means over its passes, host times in milliseconds."""
    timed = [line for line in lines if "kernels" not in line] or lines
    counted = [line["kernels"] for line in lines if "kernels" in line]

    def mean(value: Callable[[dict[str, Any]], float]) -> float:
        return round(statistics.fmean(map(value, timed)), 2)

    def host(*names: str) -> float:
        return mean(lambda line: sum(line["host"].get(name, 0.0) for name in names))

    found: dict[str, Any] = {"passes": len(lines)}
    found |= {name: mean(lambda line, name=name: line[name]) for name in ("real", "ghosts", "tokens", "prefix")}  # type: ignore[misc]
    if "gpu" in timed[0]:
        found["gpu"] = mean(lambda line: line["gpu"])
    found |= {"launch": host("launch"), "run_batch": host("run_batch"), "results": host("process_batch_result")}
    found["plugin"] = host(*(f"leyline.{name}" for name in _OUTER))
    found["paths"] = dict(Counter("graph" if line["graph"] else line["path"] or "absorbed" for line in timed))
    if counted:
        found["kernels"] = round(statistics.fmean(k["count"] for k in counted))
        found["busy"] = round(statistics.fmean(k["busy"] for k in counted), 2)
    return found


def show(args: argparse.Namespace) -> None:
    """Means by arm or phase, and within one by whether a pass has holes."""
    from common import write

    lines = [json.loads(line) for line in Path(args.file).read_text().splitlines()]
    phases = sorted({line["phase"] for line in lines})
    names = dict(zip(phases[args.skip :], args.arms, strict=False)) if args.arms else {p: str(p) for p in phases}
    found = []
    for name in dict.fromkeys(names.values()):
        mine = [line for line in lines if names.get(line["phase"]) == name]
        for kind, part in (
            ("all", mine),
            ("with holes", [line for line in mine if line["ghosts"]]),
            ("without", [line for line in mine if not line["ghosts"]]),
        ):
            if part and not (kind == "without" and len(part) == len(mine)):
                found.append({"model": args.model, "arm": name, "name": kind, **summarise(part)})
    write(args.out, passes=found)


def main() -> int:
    if len(sys.argv) > 2 and sys.argv[1] == "serve":
        serve(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["show"])
    parser.add_argument("file")
    parser.add_argument("--model", default="server", help="the name to write down")
    parser.add_argument("--arms", nargs="+", help="names of the phases; those of one name are taken together")
    parser.add_argument("--skip", type=int, default=1, help="phases before the first of --arms: a warm-up is one")
    parser.add_argument("--out", help="file to write or to add to; default: print")
    show(parser.parse_args())
    return 0


if __name__ == "__main__":
    sys.exit(main())
