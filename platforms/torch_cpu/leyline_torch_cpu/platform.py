"""The platform class. SGLang imports it in every process it starts."""

from __future__ import annotations

from typing import Any

from sglang.srt.platforms.cpu import CpuDeviceMixin
from sglang.srt.platforms.device_mixin import PlatformEnum
from sglang.srt.platforms.interface import SRTPlatform


class TorchCpuPlatform(CpuDeviceMixin, SRTPlatform):  # type: ignore[misc]
    """A CPU without vendor kernels: `torch_native` attention, and the absorbed MLA path for DeepSeek-like models."""

    _enum = PlatformEnum.OOT

    def is_pin_memory_available(self, device: Any = None) -> bool:
        return False

    def get_default_attention_backend(self) -> str:
        return "torch_native"

    def init_backend(self) -> None:
        # Without an entry, MLA models take the path for backends that decompress the latent first; torch_native
        # reads the pool of latents, so it needs the absorbed one.
        from sglang.srt.models.deepseek_common import attention_backend_handler as handler

        handler.AttentionBackendRegistry.register(
            "torch_native", lambda attention, batch: handler._dispatch_mla_subtype(attention, batch)
        )
