"""Which speech service a provider name stands for.

`make_recognizer` and `make_synthesizer` turn the options of one call into the `Recognizer` or `Synthesizer` that does
the work. Programs that embed the server add their own services with `register_recognizer`, `register_synthesizer`.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import TypeVar

import attrs

from rustpbx.errors import SpeechError
from rustpbx.outbound import Reach
from rustpbx.shell.offload import Offload
from rustpbx.speech import local
from rustpbx.speech.base import Recognizer, StreamingSynthesizer, Synthesizer
from rustpbx.speech.local_files import installed
from rustpbx.speech.spares import Spares
from rustpbx.speech.streaming import SentenceBySentence

LOCAL = "local"

BUILT_IN = {
    "aliyun": "rustpbx.speech.aliyun",
    "deepgram": "rustpbx.speech.deepgram",
    "tencent": "rustpbx.speech.tencent",
    "tencent_basic": "rustpbx.speech.tencent_basic",
    "voiceapi": "rustpbx.speech.voiceapi",
}
"""The modules of the protocol's providers, each with a `recognizer` and a `synthesizer` that make them out of options.

They are loaded when they are first asked for.
"""


@attrs.frozen(kw_only=True)
class RecognizerOptions:
    """How one call is to be heard. `provider` None means the embedded one; `rate` in Hz is what the service wants."""

    provider: str | None = None
    language: str | None = None
    rate: int = 16000
    model: str | None = None
    app_id: str | None = None
    secret_id: str | None = attrs.field(default=None, repr=False)
    secret_key: str | None = attrs.field(default=None, repr=False)
    endpoint: str | None = None
    extra: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class SynthesizerOptions:
    """Who speaks. What belongs to one utterance (speaker, speed, volume, rate) is in `Voice`."""

    provider: str | None = None
    codec: str = "pcm"
    app_id: str | None = None
    secret_id: str | None = attrs.field(default=None, repr=False)
    secret_key: str | None = attrs.field(default=None, repr=False)
    endpoint: str | None = None
    extra: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class SpeechServices:
    """What speech services may use. One per server: `asr` is the gate that all local recognizers share.

    `trusted` is for endpoints of our own configuration, `guarded` for those an agent supplies. `wall` is the time
    in seconds since the epoch, `rng` makes ids, `spares` are connections that wait for a text.
    """

    offload: Offload
    trusted: Reach | None = None
    guarded: Reach | None = None
    wall: Callable[[], float] = time.time
    rng: random.Random = attrs.field(factory=random.SystemRandom)
    asr: local.Gate = attrs.field(factory=local.Gate)
    spares: Spares = attrs.field(factory=Spares)

    def timestamp(self) -> int:
        """Seconds since the epoch: what requests are signed with."""
        return int(self.wall())

    def new_id(self) -> str:
        """A fresh UUID."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def reach(self, endpoint: str | None) -> Reach:
        """The way to a service, judged if an agent named its `endpoint`. Raises `SpeechError` if there is none."""
        way = self.guarded if endpoint else self.trusted
        if way is None:
            raise SpeechError("this server reaches no speech service over the network")
        return way


ENTRY_POINTS = "rustpbx.speech"
"""The group of entry points by which installed packages bring services: modules like those of `BUILT_IN`."""

RecognizerFactory = Callable[[RecognizerOptions, SpeechServices], Recognizer]
SynthesizerFactory = Callable[[SynthesizerOptions, SpeechServices], Synthesizer]
FactoryT = TypeVar("FactoryT")

_recognizers: dict[str, RecognizerFactory] = {}
_synthesizers: dict[str, SynthesizerFactory] = {}


def register_recognizer(provider: str, factory: RecognizerFactory) -> None:
    """Make `provider` an ASR service; an earlier one of that name is replaced."""
    _recognizers[provider] = factory


def register_synthesizer(provider: str, factory: SynthesizerFactory) -> None:
    """Make `provider` a TTS service; an earlier one of that name is replaced."""
    _synthesizers[provider] = factory


def known_providers() -> tuple[str, ...]:
    """Every name that is registered, built in, or brought by an installed package; sorted."""
    return tuple(sorted({*_recognizers, *_synthesizers, *BUILT_IN, *_installed()}))


def unregister(provider: str) -> None:
    """Forget what was registered as `provider`, in both directions."""
    _recognizers.pop(provider, None)
    _synthesizers.pop(provider, None)


@contextmanager
def stand_in(
    providers: Iterable[str], recognizer: RecognizerFactory, synthesizer: SynthesizerFactory
) -> Iterator[None]:
    """For the length of a block, be each of `providers`; what these names stood for before comes back."""
    before = [(name, _recognizers.get(name), _synthesizers.get(name)) for name in providers]
    for name, _, _ in before:
        register_recognizer(name, recognizer)
        register_synthesizer(name, synthesizer)
    try:
        yield
    finally:
        for name, old_recognizer, old_synthesizer in before:
            unregister(name)
            if old_recognizer is not None:
                register_recognizer(name, old_recognizer)
            if old_synthesizer is not None:
                register_synthesizer(name, old_synthesizer)


def make_recognizer(options: RecognizerOptions, services: SpeechServices) -> Recognizer:
    """The recognizer for one call. Raises `SpeechError` for a provider that is unknown, or not installed."""
    make: RecognizerFactory = _find(_recognizers, options.provider, "recognizer")
    return make(options, services)


def make_synthesizer(options: SynthesizerOptions, services: SpeechServices) -> Synthesizer:
    """The synthesizer for one call. Raises `SpeechError` for a provider that is unknown, or not installed."""
    make: SynthesizerFactory = _find(_synthesizers, options.provider, "synthesizer")
    return make(options, services)


def make_streaming_synthesizer(options: SynthesizerOptions, services: SpeechServices) -> StreamingSynthesizer:
    """As `make_synthesizer`, for incremental text: a service that takes only whole texts gets sentences."""
    synthesizer = make_synthesizer(options, services)
    return synthesizer if isinstance(synthesizer, StreamingSynthesizer) else SentenceBySentence(synthesizer)


def has_default_voice() -> bool:
    """Whether anything speaks where no provider is named: the embedded synthesizer, if it is installed, or another."""
    return _synthesizers.get(LOCAL) is not _local_synthesizer or installed()


def _find(factories: Mapping[str, FactoryT], provider: str | None, kind: str) -> FactoryT:
    name = provider or LOCAL
    if name in factories:
        return factories[name]
    if name in BUILT_IN:
        module = import_module(BUILT_IN[name])
    elif name in _installed():
        module = _load(_installed()[name])
    else:
        known = ", ".join(sorted({*factories, *BUILT_IN, *_installed()}))
        raise SpeechError(f"provider {name!r} is unknown; available: {known}")
    factory: FactoryT | None = getattr(module, kind, None)
    if factory is None:
        raise SpeechError(f"provider {name!r} has no {kind}")
    return factory


@cache
def _installed() -> Mapping[str, EntryPoint]:
    """The services of installed packages, by name; looked for once."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def _load(point: EntryPoint) -> ModuleType:
    """Another package's module. Raises `SpeechError` if it cannot be loaded."""
    try:
        module: ModuleType = point.load()
    except Exception as error:
        raise SpeechError(f"provider {point.name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _local_recognizer(options: RecognizerOptions, services: SpeechServices) -> Recognizer:
    return local.LocalRecognizer(services.offload, language=options.language, gate=services.asr)


def _local_synthesizer(options: SynthesizerOptions, services: SpeechServices) -> Synthesizer:  # noqa: ARG001 - one shape
    return local.LocalSynthesizer(services.offload)


register_recognizer(LOCAL, _local_recognizer)
register_synthesizer(LOCAL, _local_synthesizer)
