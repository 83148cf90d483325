"""Packing, loss codes, the feed, the optimiser and a resumed run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from training.data import Encoder, rows
from training.feed import Feed, document_mask, positions, targets
from training.models import TinyLM
from training.optimise import orthogonal
from training.packing import ANSWER, NONE, PAD, TEXT, ShardFolder, pack, read_shard, unpack, write_shard

ROOT = Path(__file__).resolve().parents[2]


def random_documents(count: int, length: int) -> list[tuple[list[int], list[int]]]:
    rng = random.Random(3)
    out = []
    for _ in range(count):
        size = rng.randint(1, int(length * 1.2))
        out.append(([rng.randrange(4096) for _ in range(size)], [rng.randrange(3) for _ in range(size)]))
    return out


def test_every_document_is_in_exactly_one_row() -> None:
    documents = random_documents(200, 300)
    found = []
    for row in pack(documents, 300):
        tokens, codes, numbers = unpack(row)
        for number in range(int(numbers[numbers != PAD].max()) + 1):
            here = numbers == number
            assert here.sum() == np.flatnonzero(here)[-1] - np.flatnonzero(here)[0] + 1
            found.append((tokens[here].tolist(), codes[here].tolist()))
    assert sorted(found) == sorted((ids[:300], codes[:300]) for ids, codes in documents)


def test_shards_are_handed_out_once(tmp_path: Path) -> None:
    made = list(pack(random_documents(30, 64), 64))
    folder = ShardFolder(tmp_path / "none")
    assert folder.fresh() == []
    write_shard(tmp_path / "none", "a", made[:3])
    first = folder.fresh()
    assert [p.name for p in first] == ["a.npy"]
    assert np.array_equal(read_shard(first[0]), np.stack(made[:3]))
    assert folder.fresh() == []


def test_positions_masks_and_targets_stay_inside_a_document() -> None:
    documents = torch.tensor([[0, 0, 0, 1, 1, PAD, PAD]])
    tokens = torch.arange(10, 17)[None]
    codes = torch.tensor([[0, 1, 2, 1, 1, 0, 0]])
    assert positions(documents).tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    mask = document_mask(documents)[0, 0]
    assert mask[2].tolist() == [True, True, True, False, False, False, False]
    assert mask[4].tolist() == [False, False, False, True, True, False, False]
    wanted, code = targets(tokens, codes, documents)
    assert wanted[0, :2].tolist() == [11, 12]
    assert code.tolist() == [[1, 2, 0, 1, 0, 0, 0]]


def test_loss_falls_on_what_the_assistant_says() -> None:
    encoder = Encoder()
    head = "<|im_start|>assistant\n"
    pieces = [("<|im_start|>user\nhello<|im_end|>\n", NONE), (f"{head}Look.\n<tool_call>x<|im_end|>\n", ANSWER)]
    ids, codes = encoder.document([*pieces, ("<|im_start|>user\nout<|im_end|>\n", TEXT)], head)
    tokenizer = encoder._tokenizer
    learned = [i for i, c in zip(ids, codes, strict=True) if c == ANSWER]
    assert tokenizer.decode(learned, skip_special_tokens=False) == "Look.\n<tool_call>x<|im_end|>"
    assert tokenizer.decode(ids, skip_special_tokens=False).count("<|im_end|>") == 3


def test_a_packed_row_trains_as_its_documents_alone(small_model: Path) -> None:
    from training import checkpoint
    from training.models import sdpa

    model = checkpoint.load_model(small_model)
    documents = [d for d in random_documents(6, 60) if len(d[0]) > 1]
    row = next(iter(pack(documents, 300)))
    tokens, _, numbers = (torch.from_numpy(p.astype(np.int64))[None] for p in unpack(row))
    with torch.no_grad():
        whole = model.hidden(tokens, positions(numbers), sdpa(document_mask(numbers)))[0]
        for number in numbers[numbers != PAD].unique():
            here = (numbers == number)[0]
            mine = tokens[:, here]
            alone = model.hidden(mine, torch.arange(mine.shape[1])[None], sdpa(None))[0]
            assert torch.allclose(whole[here], alone, atol=1e-4)


def test_training_seeds_are_deterministic() -> None:
    first, second = (np.stack(list(rows(range(10_000_000, 10_000_012), 4096))) for _ in range(2))
    assert np.array_equal(first, second)
    assert (unpack(first)[1] == ANSWER).sum() > 200


def test_updates_are_nearly_orthogonal() -> None:
    update = orthogonal(torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(update)
    assert values.min() > 0.3
    assert values.max() < 1.4


def test_a_run_can_be_resumed_and_learns(tmp_path: Path) -> None:
    rng = random.Random(0)
    text = [rng.randrange(40) for _ in range(20)]
    rows_ = list(pack([(text * 4, [ANSWER] * 80) for _ in range(200)], 256))
    write_shard(tmp_path / "shards", "a", rows_)

    def call(steps: int) -> dict[str, float]:
        command = [sys.executable, "-m", "training.train", "tiny-gqa", "--shards", tmp_path / "shards"]
        command += ["--state", tmp_path / "state", "--steps", str(steps), "--rows", "1", "--total", "1000"]
        command += ["--device", "cpu", "--small", "--plain"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # type: ignore[arg-type]
        out: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return out

    assert call(30)["steps"] == 30
    assert call(10)["steps"] == 40
    curve = (tmp_path / "state" / "tiny-gqa.csv").read_text().splitlines()
    losses = [float(line.split(",")[4]) for line in curve[1:]]
    assert losses[-1] < losses[0]
    assert list((tmp_path / "state").glob("tiny-gqa-*.safetensors"))


def launch(ranks: int, *command: object) -> str:
    """Run a module or script on several ranks of this CPU; what rank 0 and the others print."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([*launcher, *map(str, command)], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_ranks_make_one_update_of_all_rows(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.insert(0, '.')\n"
        "import torch\nfrom torch import nn\nfrom training.ranks import Ranks\n"
        "ranks = Ranks('cpu')\n"
        "layer = nn.Linear(2, 1, bias=False)\n"
        "layer.weight.grad = torch.tensor([[1.0, 4.0]]) * (1 + 2 * ranks.rank)\n"
        "ranks.average(layer.parameters())\n"
        "found = [layer.weight.grad.tolist(), ranks.agree(float(ranks.rank), 7.0)]\n"
        "open(f'{sys.argv[1]}/{ranks.rank}', 'w').write(str(found))\n"
        "ranks.close()\n"
    )
    launch(2, script, tmp_path)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["[[[2.0, 8.0]], [0.0, 7.0]]"] * 2
    for name in "abcdefgh":  # each rank finds some
        rows_ = list(pack([([ord(name)] * 80, [ANSWER] * 80) for _ in range(40)], 256))
        write_shard(tmp_path / "shards", name, rows_)
    options = ["--state", tmp_path / "state", "--steps", 4, "--rows", 2, "--device", "cpu", "--small", "--plain"]
    out = launch(2, "-m", "training.train", "tiny-mla", "--shards", tmp_path / "shards", *options)
    found = json.loads(out.splitlines()[-1])
    assert (found["steps"], found["tokens"]) == (4, 4 * 2 * 2 * 256)
    assert sum('"steps"' in line for line in out.splitlines()) == 1


def test_readers_share_the_shards(tmp_path: Path) -> None:
    for i in range(20):
        write_shard(tmp_path, f"s{i}", list(pack(random_documents(3, 64), 64)))
    parts = [{path.name for path in ShardFolder(tmp_path, (number, 2)).fresh()} for number in (0, 1)]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert len(parts[0] | parts[1]) == 20


def test_batches_mix_in_on_policy_rows(tmp_path: Path) -> None:
    made = list(pack(random_documents(30, 64), 64))
    write_shard(tmp_path / "main", "a", made)
    write_shard(tmp_path / "extra", "b", made[:2])
    feed = Feed(tmp_path / "main", 4, on_policy=tmp_path / "extra", share=0.5)
    tokens, places, codes, documents = feed.batch()
    assert tokens.shape == places.shape == codes.shape == documents.shape == (4, 64)
    feed.batch()
    assert feed.counts.on_policy > 0
    assert feed.counts.fresh > 0


def test_parameter_groups_cover_the_model() -> None:
    from training.models import SHAPES
    from training.optimise import Optimiser

    model = TinyLM(SHAPES["tiny-mla"])
    optimiser = Optimiser(model)
    covered = {id(p) for p in optimiser.rest} | {id(p) for group in optimiser.groups for p in group}
    assert covered == {id(p) for p in model.parameters()}
