"""The hooks around a forward pass: moves before it, holes in it, nothing of either behind it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from splice_rig import RING, SPACE, Rig

from leyline.backends.sglang.plugin.absorb import absorbs
from leyline.backends.sglang.plugin.cache import STAGED, Controller
from leyline.backends.sglang.plugin.forward import ForwardHooks
from leyline.backends.sglang.plugin.metrics import Metrics
from leyline.backends.sglang.plugin.mover import Tokens
from leyline.backends.sglang.plugin.ops import Hit
from leyline.backends.sglang.plugin.runs import make_plan
from leyline.backends.sglang.plugin.staging import Room
from leyline.directives import Directive, EditScript, Fallback, Mode, Receipt, WireRequest

SOURCE = list(range(100, 180))
SCRIPT = EditScript((Directive(10, 15, (7, 8), Mode.AMORTIZE), Directive(40, 45, (5, 6, 7), Mode.AMORTIZE)))
PROMPT = [*SCRIPT.apply(SOURCE), 1, 2]
VALUE = WireRequest.build(SCRIPT, SOURCE).to_json()


@dataclass
class Batch:
    """A ForwardBatch of SGLang 0.5.16, as far as ghosts change it: one plain request of 4 tokens, one edited one."""

    input_ids: torch.Tensor
    positions: torch.Tensor
    out_cache_loc: torch.Tensor
    req_pool_indices: torch.Tensor
    seq_lens: torch.Tensor
    seq_lens_cpu: torch.Tensor
    orig_seq_lens: torch.Tensor
    extend_seq_lens: torch.Tensor
    extend_prefix_lens: torch.Tensor
    extend_start_loc: torch.Tensor
    extend_seq_lens_cpu: list[int]
    extend_prefix_lens_cpu: list[int]
    extend_logprob_start_lens_cpu: list[int]
    seq_lens_sum: int
    extend_num_tokens: int
    batch_size: int = 2
    lora_ids: list[Any] = field(default_factory=lambda: [None, None])
    rids: list[str] = field(default_factory=lambda: ["plain", "edited"])
    num_token_non_padded_cpu: int = 0
    num_token_non_padded: Any = None
    req_pool_indices_cpu: Any = None


def ints(*values: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


class Scene:
    """An edited request that was admitted, in a batch with a plain one."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.rig.serve(SOURCE, None)
        self.controller = Controller(self.rig.splicer, Metrics(False), 1, 4096)
        self.moved: list[Tokens] = []
        self.adapter = SimpleNamespace(space=lambda req: SPACE, row=lambda req: req.row, absorbed=lambda *_: "absorbed")
        self.adapter.PREFILL_GRAPHS = ("breakable",)
        self.hooks = ForwardHooks(self.adapter, self.controller, self.rig.tree, self.move, self.rig.counts)  # type: ignore[arg-type]
        ids = array("q", PROMPT)
        self.plan = make_plan(VALUE, ids, SPACE, RING, page=1, max_tokens=4096)
        limit = len(ids) - 1
        hit = self.rig.tree.match(self.rig.splicer.admit(self.plan, ids, limit, SPACE), limit, SPACE)
        self.edited = self.request(1, ids, self.plan)
        staged = self.controller.stage(self.edited, Hit(hit.length, hit.node), SPACE, Room(100, 9))
        assert staged is not None
        self.staged = staged
        self.controller.commit(self.edited, staged, SPACE)
        self.edited.cached_tokens = self.edited.cached_tokens_device = staged.end
        self.plain = self.request(0, array("q", [1, 2, 3, 4]), False)
        self.table = torch.zeros((2, 200), dtype=torch.int32)
        self.table[1, staged.start : staged.end] = staged.slots.int()
        self.runner = SimpleNamespace(
            req_to_token_pool=SimpleNamespace(req_to_token=self.table), prefill_cuda_graph_runner="graphs"
        )
        self.batch = SimpleNamespace(reqs=[self.plain, self.edited])

    @staticmethod
    def request(row: int, ids: array[int], plan: Any) -> Any:
        return SimpleNamespace(
            row=row,
            full_untruncated_fill_ids=ids,
            origin_input_ids=ids,
            _compute_max_prefix_len=lambda length: length - 1,
            output_ids=[],
            customized_info=None,
            retracted_stain=False,
            cached_tokens=0,
            cached_tokens_device=0,
            _leyline_plan=plan,
        )

    def move(self, tokens: Tokens) -> None:
        self.moved.append(tokens)

    def init_new(self, *args: Any) -> Batch:
        tail = len(PROMPT) - self.staged.end
        return Batch(
            input_ids=ints(1, 2, 3, 4, *PROMPT[-tail:]),
            positions=ints(*range(4), *range(self.staged.end, len(PROMPT))),
            out_cache_loc=ints(*range(900, 904 + tail)),
            req_pool_indices=ints(0, 1),
            seq_lens=ints(4, len(PROMPT)),
            seq_lens_cpu=ints(4, len(PROMPT)),
            orig_seq_lens=ints(4, len(PROMPT), dtype=torch.int32),
            extend_seq_lens=ints(4, tail, dtype=torch.int32),
            extend_prefix_lens=ints(0, self.staged.end, dtype=torch.int32),
            extend_start_loc=ints(0, 4, dtype=torch.int32),
            extend_seq_lens_cpu=[4, tail],
            extend_prefix_lens_cpu=[0, self.staged.end],
            extend_logprob_start_lens_cpu=[4, tail],
            seq_lens_sum=4 + len(PROMPT),
            extend_num_tokens=4 + tail,
        )

    def launch(self) -> Batch:
        self.hooks.prepared(None, self.batch)
        forward: Batch = self.hooks.init_new(self.init_new, Batch, self.batch, self.runner)
        return forward

    def receipt(self) -> Receipt:
        receipt = Receipt.from_meta_info(self.edited.customized_info)
        assert receipt is not None
        return receipt


def test_moves_are_launched_once_and_holes_become_sequences() -> None:
    scene = Scene()
    holes = [(10, 12), (37, 40)]
    assert scene.staged.holes == holes
    before = scene.init_new()
    batch = scene.launch()
    (tokens,) = scene.moved
    spans = [*range(12, 37), *range(40, scene.staged.end)]
    assert tokens.new.tolist() == spans
    assert [PROMPT[new] for new in tokens.new] == [SOURCE[old] for old in tokens.old]
    assert tokens.target.tolist() == [int(scene.staged.slots[new - 10]) for new in spans]
    assert scene.rig.tree.held == 0, "the donor may go once the move is launched"
    assert not hasattr(scene.edited, STAGED) or getattr(scene.edited, STAGED) is None
    assert batch.batch_size == 4
    real = len(before.input_ids)
    assert batch.input_ids.tolist() == [*before.input_ids.tolist(), 7, 8, 5, 6, 7]
    assert batch.positions.tolist()[real:] == [10, 11, 37, 38, 39]
    assert batch.out_cache_loc.tolist()[real:] == [int(scene.table[1, i]) for a, b in holes for i in range(a, b)]
    assert batch.req_pool_indices.tolist() == [0, 1, 1, 1]
    assert (
        batch.seq_lens.tolist()[2:] == batch.seq_lens_cpu.tolist()[2:] == batch.orig_seq_lens.tolist()[2:] == [12, 40]
    )
    assert batch.extend_prefix_lens.tolist()[2:] == batch.extend_prefix_lens_cpu[2:] == [10, 37]
    assert batch.extend_seq_lens.tolist()[2:] == batch.extend_seq_lens_cpu[2:] == [2, 3]
    assert batch.extend_start_loc.tolist()[2:] == [real, real + 2]
    assert batch.extend_num_tokens == batch.num_token_non_padded_cpu == len(batch.input_ids)
    assert batch.seq_lens_sum == int(batch.seq_lens.sum())
    assert batch.rids[2:] == ["edited", "edited"]
    assert scene.edited.cached_tokens == scene.edited.cached_tokens_device == scene.staged.end - 5
    assert scene.receipt().fallback is None


def test_nothing_of_a_ghost_is_seen_behind_the_model() -> None:
    scene = Scene()
    before, batch = scene.init_new(), scene.launch()
    hidden = torch.arange(float(len(batch.input_ids)))[:, None]
    seen = []

    def processor(_: Any, ids: Any, states: Any, head: Any, metadata: Any, aux: Any = None) -> str:
        seen.append((ids, states, metadata, aux))
        return "logits"

    def model(runner: Any, batch: Any) -> str:
        assert runner.prefill_cuda_graph_runner is None
        copied = scene.hooks.load_batch(lambda *_: "static buffers", None, batch)
        assert copied.batch_size == 4
        assert copied is not batch
        copied.next_token_logits_buffer = "for four"
        scene.hooks.logits(processor, None, batch.input_ids, hidden, "head", copied, aux=hidden)
        return "output"

    assert scene.hooks.forward(model, scene.runner, batch) == "output"
    assert scene.runner.prefill_cuda_graph_runner == "graphs"
    ((ids, states, metadata, aux),) = seen
    assert torch.equal(ids, before.input_ids)
    assert len(states) == len(aux) == len(before.input_ids)
    assert metadata.extend_seq_lens_cpu == before.extend_seq_lens_cpu
    assert metadata.next_token_logits_buffer is None
    assert batch.batch_size == 2
    assert torch.equal(batch.positions, before.positions)
    assert torch.equal(batch.out_cache_loc, before.out_cache_loc)


def test_what_has_no_holes_passes_through() -> None:
    scene = Scene()
    plain = SimpleNamespace(reqs=[scene.plain])
    assert scene.hooks.prepared(None, plain) is None
    assert scene.hooks.init_new(lambda *args: args, Batch, plain, scene.runner) == (Batch, plain, scene.runner)
    batch = scene.init_new()
    assert scene.hooks.forward(lambda runner, batch: runner.prefill_cuda_graph_runner, scene.runner, batch) == "graphs"
    assert scene.hooks.load_batch(lambda *_: "static buffers", None, batch) == "static buffers"
    assert scene.hooks.logits(lambda *args: args, 1, 2, 3, 4, 5) == (1, 2, 3, 4, 5)
    assert scene.hooks.dispatch(lambda *args: "stock", None, batch, "fa3") == "stock"
    assert scene.moved == []


@pytest.mark.parametrize("where", ["here", "on another rank"])
def test_a_failed_move_becomes_a_hole(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    if where == "here":

        def fails(tokens: Tokens) -> None:
            raise RuntimeError("the copy failed")

        scene.hooks._mover = fails  # type: ignore[assignment]
    else:
        monkeypatch.setattr(scene.rig.tree, "agree", lambda ok: False)
    batch = scene.launch()
    assert batch.extend_prefix_lens_cpu[2:] == [10]
    assert batch.extend_seq_lens_cpu[2:] == [scene.staged.end - 10]
    assert batch.input_ids.tolist()[-(scene.staged.end - 10) :] == PROMPT[10 : scene.staged.end]
    receipt = scene.receipt()
    assert receipt.splices == ()
    assert receipt.fallback is Fallback.INTERNAL_ERROR
    assert receipt.prefix_tokens == scene.edited.cached_tokens == 10
    # The server says no to the next one.
    following = scene.request(1, array("q", PROMPT), None)
    following.sampling_params = SimpleNamespace(custom_params={"leyline": VALUE})
    plan = scene.controller.plan(following, SPACE)
    assert plan is not None
    assert plan.runs == ()
    assert plan.fallback is Fallback.INTERNAL_ERROR


@pytest.mark.parametrize(("queries", "absorbed"), [(1, True), (160, True), (180, False), (8192, False)])
def test_the_absorbed_path_where_it_costs_less(queries: int, absorbed: bool) -> None:
    """DeepSeek V2 and V3: below 170 queries a sequence."""
    attention = SimpleNamespace(kv_lora_rank=512, qk_nope_head_dim=128, v_head_dim=128)
    batch: Any = SimpleNamespace(extend_prefix_lens_cpu=[40_000] * 3, extend_seq_lens_cpu=[queries] * 3)
    batch.get_max_chunk_capacity = lambda: 2**20
    assert absorbs(attention, batch) is absorbed
    scene = Scene()
    scene.hooks._running.append(None)  # type: ignore[arg-type]
    found = scene.hooks.dispatch(lambda *args: "stock", attention, batch, "fa3")
    assert found == ("absorbed" if absorbed else "stock")


def test_the_absorbed_path_pays_longer_where_the_other_goes_chunk_by_chunk() -> None:
    attention = SimpleNamespace(kv_lora_rank=512, qk_nope_head_dim=128, v_head_dim=128)
    for capacity, absorbed in ((2**20, False), (2**17, True)):
        batch: Any = SimpleNamespace(extend_prefix_lens_cpu=[60_000] * 3, extend_seq_lens_cpu=[300] * 3)
        batch.get_max_chunk_capacity = lambda capacity=capacity: capacity
        assert absorbs(attention, batch) is absorbed


@pytest.mark.parametrize(
    ("graphs", "kept"),
    [
        ({"prefill_backend_name": "breakable", "max_bs": 64, "use_captured_attn_metadata": False}, True),
        ({"prefill_backend_name": "breakable", "max_bs": 3, "use_captured_attn_metadata": False}, False),
        ({"prefill_backend_name": "breakable", "max_bs": 64, "use_captured_attn_metadata": True}, False),
        ({"prefill_backend_name": "full", "max_bs": 64, "use_captured_attn_metadata": False}, False),
        ({}, False),
    ],
)
def test_holes_run_in_captured_graphs_that_were_proven_and_have_room(graphs: dict[str, Any], kept: bool) -> None:
    scene = Scene()
    scene.runner.prefill_cuda_graph_runner = captured = SimpleNamespace(**graphs)
    batch = scene.launch()
    seen = []
    scene.hooks.forward(lambda runner, _: seen.append(runner.prefill_cuda_graph_runner), scene.runner, batch)
    assert seen == [captured if kept else None]
    assert scene.runner.prefill_cuda_graph_runner is captured
