"""The simulated radix cache counts what a real server reports, to the token: pages of 1 and 16, a pool that evicts."""

from __future__ import annotations

import random

import pytest
from sgl_rig import KINDS, PAGES, POOL, Servers

from leyline.backends.contract import TurnInput
from leyline.backends.simulated.radix import RadixCache
from leyline.backends.simulated.serve import serve
from leyline.directives import Rendered
from leyline.evals.replay.recorded import RecordedBackend
from leyline.evals.replay.traces import Recording
from leyline.evals.replay.walk import Setting, replay_on, replay_together
from leyline.evals.trials.turns import answer_places

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]
REQUESTS = 60
CHUNK = 256  # of the shared servers


@pytest.mark.parametrize("kind", KINDS)
def test_cached_tokens(servers: Servers, kind: str) -> None:
    """Requests that share prefixes at random depths, each behind the last, with one to seventeen generated tokens."""
    server, cache = servers.stock(kind), RadixCache(page_size=PAGES[kind], capacity=POOL)
    server.flush()
    draw = random.Random(5)
    done: list[list[int]] = [[]]
    for _ in range(REQUESTS):
        base = draw.choice(done)
        shared = base[: draw.randint(0, len(base))]
        ids = (shared + [draw.randint(0, 255) for _ in range(draw.randint(1, 300))])[:1100]
        params = {"max_new_tokens": draw.choice([1, 1, 5, 17]), "temperature": 0, "ignore_eos": True}
        answer = server.post("/generate", {"input_ids": ids, "sampling_params": params}).json()
        output = answer["output_ids"][:-1]  # the KV of the last token is never made
        served = serve(cache, TurnInput("s", Rendered(tuple(ids))), ids, output, False, chunk=CHUNK)
        assert answer["meta_info"]["cached_tokens"] == served.prefix
        done.append([*ids, *output])
    assert cache.evicted > POOL


def recording(name: str, turns: int, seed: int) -> Recording:
    draw = random.Random(seed)

    def text(most: int) -> str:
        return "".join(draw.choice("abcdefgh \n") for _ in range(draw.randint(1, most)))

    messages = [{"role": "system", "content": text(40)}, {"role": "user", "content": text(60)}]
    for _ in range(turns):
        messages += [{"role": "assistant", "content": text(12)}, {"role": "user", "content": text(150)}]
    return Recording(name, messages)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", ["keep_all", "keep_last(n=2)", "truncate_older_than(n=1, max_chars=40)"])
def test_a_replay_hits_on_a_stock_server_what_it_hits_in_the_simulation(
    servers: Servers, kind: str, policy: str
) -> None:
    from leyline.backends.sglang.client.backend import SGLangBackend

    server = servers.stock(kind)
    server.flush()
    trajectory = recording("t", 8, 3)
    backend = SGLangBackend(server.url)
    recorded = RecordedBackend(backend)
    recorded.begin([trajectory.messages[place] for place in answer_places(trajectory.messages)])
    setting = Setting(policy, "radix", page_size=PAGES[kind], capacity=POOL, chunk=CHUNK)
    real = replay_on(trajectory, setting, recorded)
    simulated = replay_together([trajectory], setting, backend.renderer)[0]
    backend.close()
    assert real.stopped is None
    assert [(t.prompt, t.prefix) for t in real.turns] == [(t.prompt, t.prefix) for t in simulated.turns]
