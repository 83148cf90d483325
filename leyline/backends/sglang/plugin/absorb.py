"""Which of DeepSeek's two attention paths a forward with holes takes."""

from __future__ import annotations

from typing import Any

_ABSORBED = "_leyline_absorbed"


def absorbs(attention: Any, batch: Any) -> bool:
    """Whether the absorbed path costs this forward less than decompressing latents.

    The other path decompresses the whole prefix of *every* sequence, so k holes at 64k decompress k * 64k latents a
    layer. A head's multiplications for one query and one key are 2r + d absorbed, n + d + v decompressed (r: latent
    rank; n, d, v: head widths without and with position, and of values), and decompressing a key costs r(n + v).
    Absorbed is cheaper below r(n + v) / (2r - n - v) queries a sequence: 170 for DeepSeek V2 and V3. Past the capacity
    of one chunk the other path runs each layer's attention chunk by chunk and merges, which takes twice the launches.
    """
    known = getattr(batch, _ABSORBED, None)
    if known is None:
        r, n, v = attention.kv_lora_rank, attention.qk_nope_head_dim, attention.v_head_dim
        prefixes, lengths = batch.extend_prefix_lens_cpu or [], batch.extend_seq_lens_cpu or []
        pairs = sum(queries * keys for queries, keys in zip(lengths, prefixes, strict=True))
        chunked = sum(prefixes) + sum(lengths) > batch.get_max_chunk_capacity()
        known = pairs * (2 * r - n - v) < sum(prefixes) * r * (n + v) * (2 if chunked else 1)
        setattr(batch, _ABSORBED, known)
    return bool(known)
