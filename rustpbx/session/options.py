"""The option objects of `invite`, `accept`, `ringing`, `refer` and `tts`: what an agent may ask of a call.

These classes are what the JSON means, not how it is spelled: on the wire the keys are camelCase
(`speech_padding` is `speechPadding`), with the aliases that `rustpbx.control.wire` lists. A field that is None was
absent; where the protocol has a fixed default, the field has it. `SynthesisOption` is the exception: all of its
fields are None when absent, because a command's option is laid over the call's (`merge_synthesis`).
Credentials are left out of every `repr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs

SLOWEST, FASTEST, LOUDEST = 0.1, 10.0, 10
"""What any voice is asked for: speed and volume. A service that knows less than that takes the nearest it knows."""


class CallType(Enum):
    """How the audio of a session travels; the values are those of the wire."""

    SIP = "sip"
    WEBRTC = "webrtc"
    WEBSOCKET = "webSocket"


@attrs.frozen(kw_only=True)
class VadOption:
    """Voice activity detection on the remote party's audio; its events are `speaking` and `silence`.

    `type` is the engine: `webrtc`, `silero`, `ten`. `speech_padding` is how long speech must last before `speaking`,
    `silence_padding` how long silence must last before `silence`, both in ms. A score above `voice_threshold`, 0..1, is
    speech (not for `webrtc`). `silence_timeout`, in ms, repeats `silence` for as long as nobody speaks; None is off.
    The rest changes nothing: each engine hears the rate that serves it, whatever `samplerate` says; `ratio`,
    `max_buffer_duration_secs`, `endpoint` and the secrets are for engines elsewhere.
    With `min_words`, speech that begins while we speak counts once so many words were heard that are not our own.
    """

    type: str = "webrtc"
    samplerate: int = 16000
    speech_padding: int = 250
    silence_padding: int = 100
    ratio: float = 0.5
    voice_threshold: float = 0.5
    max_buffer_duration_secs: int = 50
    silence_timeout: int | None = None
    min_words: int = 0
    endpoint: str | None = None
    secret_key: str | None = attrs.field(default=None, repr=False)
    secret_id: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class TranscriptionOption:
    """Speech to text; its events are `asrDelta` and `asrFinal`.

    `provider` None is the embedded one. `samplerate` is in Hz, `buffer_size` a hint in bytes. Credentials that are
    None come from the environment. `extra` holds parameters under the provider's own names. With
    `start_when_answer` nothing is heard, nor the provider connected to, before the call is answered.
    """

    provider: str | None = None
    language: str | None = None
    app_id: str | None = attrs.field(default=None, repr=False)
    secret_id: str | None = attrs.field(default=None, repr=False)
    secret_key: str | None = attrs.field(default=None, repr=False)
    model_type: str | None = None
    buffer_size: int | None = None
    samplerate: int = 16000
    endpoint: str | None = None
    extra: Mapping[str, str] | None = None
    start_when_answer: bool = False


@attrs.frozen(kw_only=True)
class SynthesisOption:
    """Text to speech, for a whole call or for one `tts` command. Every field is None unless it was really given.

    `provider` None is the embedded one. `samplerate` is in Hz (16000 if nobody says), `speed` a multiplier (1.0),
    `volume` 0..10 (5), `codec` what the provider is asked for (`pcm`). `max_concurrent_tasks` is how many requests
    of one playback may run at once (1; more than 8 are 8). `wait_input_timeout` is in ms and the default of commands
    that have none.
    """

    provider: str | None = None
    samplerate: int | None = None
    speed: float | None = None
    volume: int | None = None
    speaker: str | None = None
    codec: str | None = None
    subtitle: bool | None = None
    emotion: str | None = None
    app_id: str | None = attrs.field(default=None, repr=False)
    secret_id: str | None = attrs.field(default=None, repr=False)
    secret_key: str | None = attrs.field(default=None, repr=False)
    endpoint: str | None = None
    extra: Mapping[str, str] | None = None
    max_concurrent_tasks: int | None = None
    wait_input_timeout: int | None = None
    cache_key: str | None = None


@attrs.frozen(kw_only=True)
class RecorderOption:
    """Recording of both parties in two channels; `{}` records with all defaults.

    `recorder_file` empty means a file named after the session. `samplerate` is in Hz, `ptime` the flush period in
    ms. `format` is `wav`, `mp3`, `ogg` or `flac`; None is the server's configured format.
    """

    recorder_file: str = ""
    samplerate: int = 16000
    ptime: int = 200
    format: str | None = None


@attrs.frozen(kw_only=True)
class MediaPassOption:
    """Audio both ways over a WebSocket to a service of the agent's, in place of playback.

    Rates are in Hz and from our point of view: `input_sample_rate` of audio that comes from the service,
    `output_sample_rate` of audio that goes to it. `packet_size` is the bytes of one message to the service. With
    `ptime` (ms) incoming audio is buffered and released at that period.
    """

    url: str
    input_sample_rate: int = 16000
    output_sample_rate: int = 16000
    packet_size: int = 2560
    ptime: int | None = None


@attrs.frozen(kw_only=True)
class SipOption:
    """What an outgoing INVITE carries: digest credentials, a Contact URI, extra header fields by name.

    Empty credentials are no credentials; an empty `realm` answers any realm. `display_name` is what the callee's phone
    may show of the caller, in place of the one in `caller`. `srtp` is `off`, `prefer` or `require`
    for this call; None is what the account or the server has. With `delayed_offer` the INVITE has no SDP, and the
    callee makes the offer.
    """

    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    realm: str | None = None
    contact: str | None = None
    headers: Mapping[str, str] | None = None
    display_name: str | None = None
    srtp: str | None = None
    delayed_offer: bool = False


@attrs.frozen(kw_only=True)
class EouOption:
    """End-of-utterance detection; its event is `eou`. `timeout`, in ms, is the longest wait."""

    type: str | None = None
    endpoint: str | None = None
    secret_key: str | None = attrs.field(default=None, repr=False)
    secret_id: str | None = attrs.field(default=None, repr=False)
    timeout: int | None = None
    extra: Mapping[str, str] | None = None


@attrs.frozen(kw_only=True)
class ReferOption:
    """How a `refer` behaves. `timeout`, in seconds, is the time the target has to answer: 30 if it is not given.

    `mode` is `bridged`, or `blind` for a SIP REFER. `moh` is the URL of music that the remote party hears meanwhile.
    `asr` listens to the new leg. With `auto_hangup` the call ends when the answered leg ends. With `pause_parent_asr`
    the agent is not told what the remote party says to the target. `call_id` is accepted and ignored: a Call-ID that
    somebody else makes is not sure to be new.
    """

    denoise: bool = False
    timeout: int | None = None
    moh: str | None = None
    asr: TranscriptionOption | None = None
    auto_hangup: bool = True
    sip: SipOption | None = None
    call_id: str | None = None
    pause_parent_asr: bool = False
    mode: str = "bridged"


@attrs.frozen(kw_only=True)
class DtmfOption:
    """How the remote party's keys are found. `inband` looks for tones in the audio, too; None is as the server does."""

    inband: bool | None = None


@attrs.frozen(kw_only=True)
class AmdOption:
    """Answering machine detection, from the answer on; its event is `answerMachineDetection`. All in ms.

    Who speaks for `greeting` in all is a machine; who has spoken, and then says nothing for `silence`, is a person.
    After `timeout` without either it is unsure.
    """

    greeting: int = 2500
    silence: int = 1000
    timeout: int = 10000


@attrs.frozen(kw_only=True)
class CallOption:
    """What a call is made of (`invite`, `accept`); a part that is None is off.

    `caller` and `callee` are SIP addresses, `offer` is a WebRTC offer's SDP, `codec` is for `/call` only (`pcm`,
    `pcmu`, `pcma`, `g722`). The remote party's audio passes denoise, vad, asr, eou in this order. `extra` is free
    data for the call record and the `hangup` event. `handshake_timeout` (15 if None) and `inactivity_timeout` are
    in seconds. `subscribe` asks for copies of the audio in binary frames (not on `/call`: there they are the call).
    """

    callee: str | None = None
    caller: str | None = None
    offer: str | None = None
    codec: str = "pcm"
    denoise: bool = False
    vad: VadOption | None = None
    asr: TranscriptionOption | None = None
    tts: SynthesisOption | None = None
    eou: EouOption | None = None
    recorder: RecorderOption | None = None
    media_pass: MediaPassOption | None = None
    sip: SipOption | None = None
    dtmf: DtmfOption | None = None
    amd: AmdOption | None = None
    handshake_timeout: int | None = None
    enable_ipv6: bool = False
    extra: Mapping[str, str] | None = None
    inactivity_timeout: int | None = None
    subscribe: bool = False


def merge_synthesis(call_level: SynthesisOption | None, command_level: SynthesisOption | None) -> SynthesisOption:
    """The option that a `tts` command speaks with: the command's value wins wherever it was given.

    `extra` maps are merged key by key. With neither side given, the result has every field absent: the embedded
    provider with its defaults.
    """
    if call_level is None or command_level is None:
        return command_level or call_level or SynthesisOption()
    given = {
        field.name: value
        for field in attrs.fields(SynthesisOption)
        if (value := getattr(command_level, field.name)) is not None
    }
    if call_level.extra and command_level.extra:
        given["extra"] = {**call_level.extra, **command_level.extra}
    return attrs.evolve(call_level, **given)


def synthesis_problem(option: SynthesisOption) -> str | None:
    """Why nothing can be said like this, whoever says it; None if it can."""
    if option.speed is not None and not SLOWEST <= option.speed <= FASTEST:
        return f"speed is a multiplier of {SLOWEST:g} to {FASTEST:g}, not {option.speed:g}"
    if option.volume is not None and not 0 <= option.volume <= LOUDEST:
        return f"volume is 0 to {LOUDEST}, not {option.volume}"
    return None
