"""What the plugin changes in a server that did not select it: nothing but a look at the selection."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from leyline.backends.sglang.plugin.streaming import around_chat_stream

LIST = """
from sglang.srt.plugins import load_plugins
from sglang.srt.plugins.hook_registry import HookRegistry
from sglang.srt.mem_cache.registry import registered_radix_cache_backends
load_plugins()
print(",".join(sorted(HookRegistry._hooks)), "leyline" in registered_radix_cache_backends())
"""


@pytest.mark.sglang
@pytest.mark.slow
def test_the_schedulers_hooks_come_with_its_cache() -> None:
    if find_spec("sglang") is None or find_spec("leyline_torch_cpu") is None:
        pytest.skip("sglang is not installed; run `make sglang-cpu`")
    from leyline_torch_cpu import standin_path

    paths = [path for path in (standin_path(), os.environ.get("PYTHONPATH")) if path]
    environment = {**os.environ, "SGLANG_PLATFORM": "torch_cpu", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIST], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    hooks, registered = done.stdout.split()[-2:]
    assert hooks == "sglang.srt.entrypoints.openai.serving_chat.OpenAIServingChat._generate_chat_stream"
    assert registered == "True"


HOOKED_BY_ANOTHER = """
import sys, types
from sglang.srt.plugins.hook_registry import HookRegistry, HookType
from leyline.backends.sglang.plugin.build import _install

module = types.ModuleType("engine")
module.forward, module.load, module.told = (lambda x: [x]), (lambda x: [x]), (lambda x: [x])
sys.modules["engine"] = module
HookRegistry.register("engine.forward", lambda original, x: ["theirs", *original(x)], HookType.AROUND)
HookRegistry.apply_hooks()

def ours(original, x):
    return ["ours", *original(x)]

_install({"engine.forward": ("around", ours), "engine.load": ("around", ours)})
print(module.forward(1), module.load(2))
try:
    _install({"engine.told": ("around", ours), "engine.gone": ("around", ours)})
except RuntimeError as error:
    print(error)
"""


@pytest.mark.sglang
@pytest.mark.slow
def test_hooks_stand_beside_another_plugins_and_a_server_without_all_of_them_does_not_start() -> None:
    if find_spec("sglang") is None:
        pytest.skip("sglang is not installed; run `make sglang-cpu`")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HOOKED_BY_ANOTHER], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()[-2:]
    assert first == "['ours', 'theirs', 1] ['ours', 2]"
    assert "could not hook into engine.gone" in second


@pytest.mark.parametrize("selected", [None, "flexkv", "leyline"])
def test_a_chat_stream_is_wrapped_only_where_the_plugin_was_selected(selected: str | None) -> None:
    manager = SimpleNamespace(server_args=SimpleNamespace(radix_cache_backend=selected))
    serving: Any = SimpleNamespace(tokenizer_manager=manager)
    adapted = SimpleNamespace(sampling_params={"custom_params": {"leyline": "{}"}}, rid="1")
    stream = around_chat_stream(lambda *_: "its own", serving, adapted, SimpleNamespace(model="m"))
    assert (stream == "its own") is (selected != "leyline")
