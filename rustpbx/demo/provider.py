"""Which speech service the demo's server hears and speaks with; the phone's own voice stays the embedded one."""

from __future__ import annotations

from collections.abc import Mapping

from rustpbx.demo.agent import LISTENS, Option
from rustpbx.demo.trouble import ProviderError
from rustpbx.errors import SpeechError
from rustpbx.outbound import Reach, open_client
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.offload import InlineOffload
from rustpbx.speech.registry import (
    RecognizerOptions,
    SpeechServices,
    SynthesizerOptions,
    make_recognizer,
    make_synthesizer,
)

ENGLISH: Mapping[str, Mapping[str, object]] = {
    "aliyun": {"language": "en"},
    "tencent": {"modelType": "16k_en"},
    "tencent_basic": {"modelType": "16k_en"},
}
"""What makes a service expect English, where it does not by itself: the demo's sentences are English."""


def option(provider: str | None) -> Option:
    """What the agents ask of their calls."""
    if provider is None:
        return LISTENS
    return {**LISTENS, "asr": {"provider": provider, **ENGLISH.get(provider, {})}, "tts": {"provider": provider}}


async def check(provider: str) -> None:
    """See whether the service could be used from here, without asking it.

    Raises `ProviderError`, which names the environment variable that is missing.
    """
    network = RealNetwork()
    async with open_client(network) as client:
        services = SpeechServices(offload=InlineOffload(), trusted=Reach(network=network, client=client))
        try:
            make_recognizer(RecognizerOptions(provider=provider), services)
            make_synthesizer(SynthesizerOptions(provider=provider), services)
        except SpeechError as problem:
            raise ProviderError(str(problem)) from problem
