import importlib.util
import random
from array import array
from pathlib import Path

import pytest

from leyline.backends.simulated.radix import RadixCache, RadixError, key_of, marked_key

STANDIN = Path(__file__).parents[3] / "platforms" / "torch_cpu" / "leyline_torch_cpu" / "standin"


def naive_match(held: list[list[int]], ids: list[int], page: int) -> int:
    best = 0
    for other in held:
        same = 0
        while same < min(len(ids), len(other) // page * page) and ids[same] == other[same]:
            same += 1
        best = max(best, same)
    return best // page * page


def traffic(generator: random.Random, count: int) -> list[list[int]]:
    """Sequences that share prefixes at random depths, as conversations do."""
    done: list[list[int]] = [[]]
    for _ in range(count):
        base = generator.choice(done)
        cut = generator.randint(0, len(base))
        done.append(base[:cut] + [generator.randint(0, 3) for _ in range(generator.randint(1, 40))])
    return done[1:]


@pytest.mark.parametrize("page", [1, 4, 16])
@pytest.mark.parametrize("seed", range(6))
def test_match_is_the_longest_common_prefix_in_whole_pages(page: int, seed: int) -> None:
    cache = RadixCache(page_size=page)
    held: list[list[int]] = []
    for ids in traffic(random.Random(seed), 120):
        assert cache.match(key_of(ids)) == naive_match(held, ids, page)
        cache.insert(key_of(ids))
        held.append(ids)
        cache.check()


@pytest.mark.parametrize("page", [1, 8])
def test_capacity_holds_and_the_kept_path_stays(page: int) -> None:
    cache = RadixCache(page_size=page, capacity=256)
    for ids in traffic(random.Random(1), 400):
        ids = ids[:200]
        key = key_of(ids)
        found = cache.match(key)
        assert cache.make_room(len(ids) - found, keep=key) >= len(ids) - found
        assert cache.match(key) == found
        cache.insert(key)
        cache.check()
    assert cache.evicted > 0


def test_least_recently_used_leaf_goes_first() -> None:
    cache = RadixCache(capacity=12)
    for first in (1, 2, 3):
        cache.insert(key_of([first] * 4))
    cache.match(key_of([1] * 4))
    cache.make_room(1)
    assert [cache.match(key_of([first] * 4)) for first in (1, 2, 3)] == [4, 0, 4]


def test_a_lineage_is_private_from_its_start() -> None:
    cache = RadixCache()
    ids = list(range(20))
    cache.insert(marked_key(ids, "mine", 8))
    assert cache.match(key_of(ids)) == 8
    assert cache.match(marked_key(ids, "mine", 8)) == 20
    assert cache.match(marked_key(ids, "mine", 9)) == 8
    assert cache.match(marked_key(ids, "yours", 8)) == 8
    assert marked_key(ids, None, 3) == marked_key(ids, "mine", None) == key_of(ids)


@pytest.mark.parametrize("arguments", [{"page_size": 0}, {"capacity": 0}, {"page_size": 16, "capacity": 8}])
def test_impossible_sizes_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(RadixError):
        RadixCache(**arguments)


class Pool:
    """The slots of a server, as far as its tree asks for them."""

    device = "cpu"

    def __init__(self, size: int) -> None:
        self.free = size

    def free_segment(self, value: object, start_pos: int = 0) -> None:
        self.free += len(value)  # type: ignore[arg-type]


@pytest.mark.sglang
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [1, 16])
@pytest.mark.parametrize("capacity", [None, 512])
def test_every_hit_and_eviction_is_that_of_sglangs_own_tree(
    page: int, capacity: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sglang")
    if importlib.util.find_spec("torchvision") is None:
        monkeypatch.syspath_prepend(str(STANDIN))
    import torch
    from sglang.srt.mem_cache.base_prefix_cache import EvictParams, InsertParams, MatchPrefixParams
    from sglang.srt.mem_cache.radix_cache import RadixCache as TheirCache
    from sglang.srt.mem_cache.radix_cache import RadixKey

    slots = capacity or 1 << 40
    pool = Pool(slots)
    theirs = TheirCache.create_simulated(mock_allocator=pool, page_size=page)
    ours = RadixCache(page_size=page, capacity=capacity)
    for ids in traffic(random.Random(3), 500):
        ids = ids[:400]
        key = RadixKey(array("q", ids), None)
        match = theirs.match_prefix(MatchPrefixParams(key=key))
        assert ours.match(key_of(ids)) == match.device_prefix_len
        needed = -(-(len(ids) - match.device_prefix_len) // page) * page
        if needed > pool.free:
            handle = theirs.lock(match.last_device_node)
            theirs.evict(EvictParams(num_tokens=needed - pool.free))
            theirs.unlock(handle)
        ours.make_room(needed, keep=key_of(ids))
        aligned = len(ids) // page * page
        value = torch.arange(aligned, dtype=torch.int64)
        before = theirs.insert(InsertParams(key=key, value=value)).prefix_len
        pool.free -= aligned - before
        assert ours.insert(key_of(ids)) == before
        assert ours.size == slots - pool.free
    if capacity:
        assert ours.evicted > 1000
