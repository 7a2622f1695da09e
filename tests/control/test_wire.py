"""The JSON of commands: what is understood, what is lenient by rule, what is refused and how it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.control.reading import ALIASES, CLASS_ALIASES, camel
from rustpbx.control.wire import MAX_DEPTH, MAX_MESSAGE, WireError, calls_body, decode_command, encode_command
from rustpbx.session.commands import (
    Accept,
    Candidate,
    Command,
    Dtmf,
    Hangup,
    History,
    Interrupt,
    Invite,
    Mute,
    Pause,
    Play,
    Refer,
    Referred,
    Reject,
    Resume,
    Ring,
    Tts,
    Unmute,
)
from rustpbx.session.options import (
    AmdOption,
    CallOption,
    CallType,
    EouOption,
    MediaPassOption,
    RecorderOption,
    ReferOption,
    SipOption,
    SynthesisOption,
    TranscriptionOption,
    VadOption,
    merge_synthesis,
)
from rustpbx.session.params import CallSummary
from tests.kit.predicates import control_json

GOLDEN = Path(__file__).parent.parent / "golden" / "control"


def decode(command: str, **fields: object) -> Command:
    """Decode a command with these wire fields."""
    return decode_command(json.dumps({"command": command, **fields}))


def option(**fields: object) -> CallOption:
    """The option of an invite with these wire fields."""
    command = decode("invite", option=fields)
    assert isinstance(command, Invite)
    return command.option


def problem(text: str) -> str:
    """What is said about a text that is no command."""
    with pytest.raises(WireError) as raised:
        decode_command(text)
    return str(raised.value)


# -- commands -------------------------------------------------------------------------------------------------------

COMMANDS: list[tuple[str, Command]] = [
    ('{"command":"invite","option":{}}', Invite(option=CallOption())),
    ('{"command":"accept","option":{"denoise":true}}', Accept(option=CallOption(denoise=True))),
    ('{"command":"reject","reason":"busy"}', Reject(reason="busy", code=603)),
    ('{"command":"reject","reason":"busy","code":486}', Reject(reason="busy", code=486)),
    ('{"command":"ringing"}', Ring()),
    (
        '{"command":"ringing","ringtone":"http://x/r.wav","earlyMedia":true,"recorder":{}}',
        Ring(ringtone="http://x/r.wav", early_media=True, recorder=RecorderOption()),
    ),
    ('{"command":"tts","text":""}', Tts(text="")),
    (
        """{"command":"tts","text":"hi","speaker":"3","playId":"1","autoHangup":true,"streaming":true,
        "endOfStream":true,"option":{"speed":1.5},"waitInputTimeout":5000,"base64":true,"cacheKey":"k"}""",
        Tts(
            text="hi",
            speaker="3",
            play_id="1",
            auto_hangup=True,
            streaming=True,
            end_of_stream=True,
            option=SynthesisOption(speed=1.5),
            wait_input_timeout=5000,
            base64=True,
            cache_key="k",
        ),
    ),
    (
        '{"command":"play","url":"http://x/a.mp3","playId":"p","autoHangup":true,"waitInputTimeout":1}',
        Play(url="http://x/a.mp3", play_id="p", auto_hangup=True, wait_input_timeout=1),
    ),
    ('{"command":"interrupt"}', Interrupt()),
    ('{"command":"interrupt","graceful":true,"fadeOutMs":20}', Interrupt(graceful=True, fade_out_ms=20)),
    ('{"command":"pause"}', Pause()),
    ('{"command":"resume"}', Resume()),
    ('{"command":"accept","option":{},"headers":{"X-A":"1"}}', Accept(option=CallOption(), headers={"X-A": "1"})),
    (
        '{"command":"reject","reason":"no","headers":{"X-A":"1"}}',
        Reject(reason="no", headers={"X-A": "1"}),
    ),
    ('{"command":"hangup"}', Hangup()),
    (
        '{"command":"hangup","reason":"bye","initiator":"user","headers":{"X-A":"1"}}',
        Hangup(reason="bye", initiator="user", headers={"X-A": "1"}),
    ),
    (
        '{"command":"refer","caller":"sip:a@x","callee":"sip:b@x","options":{"timeout":30}}',
        Refer(caller="sip:a@x", callee="sip:b@x", options=ReferOption(timeout=30)),
    ),
    (
        '{"command":"dtmf","digits":"12#","duration":100,"gap":60,"method":"info"}',
        Dtmf(digits="12#", duration=100, gap=60, method="info"),
    ),
    ('{"command":"referred","code":486,"reason":"busy"}', Referred(code=486, reason="busy")),
    (
        '{"command":"refer","caller":"sip:a@x","callee":"sip:b@x","options":{"mode":"blind"}}',
        Refer(caller="sip:a@x", callee="sip:b@x", options=ReferOption(mode="blind")),
    ),
    ('{"command":"dtmf","digits":"1"}', Dtmf(digits="1", duration=160, gap=80, method="auto")),
    ('{"command":"mute","trackId":"t"}', Mute(track_id="t")),
    ('{"command":"unmute"}', Unmute()),
    ('{"command":"history","speaker":"user","text":"hi"}', History(speaker="user", text="hi")),
    ('{"command":"candidate","candidates":[{"any":"shape"}, 1, ""]}', Candidate()),
    ('{"command":"candidate","candidates":"all"}', Candidate()),
    (
        '{"command":"candidate","candidates":["candidate:1 1 udp 1 10.0.0.1 9 typ host",{"candidate":"a=x"}]}',
        Candidate(candidates=("candidate:1 1 udp 1 10.0.0.1 9 typ host", "a=x")),
    ),
]


@pytest.mark.parametrize(("text", "command"), COMMANDS)
def test_each_command_is_understood(text: str, command: Command) -> None:
    """With its documented keys and defaults."""
    assert decode_command(text) == command


def test_every_command_class_is_tried_above() -> None:
    """The list of examples misses none."""
    assert {type(command) for _, command in COMMANDS} == set(get_args(Command))


def test_every_option_key_is_understood() -> None:
    """All of section 3's keys at once, each where it belongs."""
    assert option(
        callee="sip:b@x",
        caller="sip:a@x",
        offer="v=0",
        codec="g722",
        denoise=True,
        vad={
            "type": "silero",
            "samplerate": 8000,
            "speechPadding": 1,
            "silencePadding": 2,
            "ratio": 0.25,
            "voiceThreshold": 1,
            "maxBufferDurationSecs": 3,
            "silenceTimeout": 4,
            "endpoint": "e",
            "secretKey": "k",
            "secretId": "i",
        },
        asr={
            "provider": "tencent",
            "language": "zh",
            "appId": "a",
            "secretId": "i",
            "secretKey": "k",
            "modelType": "m",
            "bufferSize": 5,
            "samplerate": 8000,
            "endpoint": "e",
            "extra": {"x": "y"},
            "startWhenAnswer": True,
        },
        tts={
            "provider": "aliyun",
            "samplerate": 8000,
            "speed": 1.5,
            "volume": 6,
            "speaker": "s",
            "codec": "pcm",
            "subtitle": False,
            "emotion": "sad",
            "appId": "a",
            "secretId": "i",
            "secretKey": "k",
            "endpoint": "e",
            "extra": {"x": "y"},
            "maxConcurrentTasks": 2,
            "waitInputTimeout": 7,
            "cacheKey": "c",
        },
        eou={"type": "t", "endpoint": "e", "secretKey": "k", "secretId": "i", "timeout": 8, "extra": {"x": "y"}},
        recorder={"recorderFile": "f", "samplerate": 8000, "ptime": 100, "format": "ogg"},
        mediaPass={"url": "ws://x", "inputSampleRate": 8000, "outputSampleRate": 24000, "packetSize": 640, "ptime": 20},
        sip={"username": "u", "password": "p", "realm": "r", "contact": "sip:c@x", "headers": {"X-A": "1"}},
        amd={"greeting": 2000, "silence": 800, "timeout": 5000},
        handshakeTimeout=9,
        enableIpv6=True,
        extra={"a": "b"},
        inactivityTimeout=10,
        subscribe=True,
    ) == CallOption(
        callee="sip:b@x",
        caller="sip:a@x",
        offer="v=0",
        codec="g722",
        denoise=True,
        vad=VadOption(
            type="silero",
            samplerate=8000,
            speech_padding=1,
            silence_padding=2,
            ratio=0.25,
            voice_threshold=1.0,
            max_buffer_duration_secs=3,
            silence_timeout=4,
            endpoint="e",
            secret_key="k",
            secret_id="i",
        ),
        asr=TranscriptionOption(
            provider="tencent",
            language="zh",
            app_id="a",
            secret_id="i",
            secret_key="k",
            model_type="m",
            buffer_size=5,
            samplerate=8000,
            endpoint="e",
            extra={"x": "y"},
            start_when_answer=True,
        ),
        tts=SynthesisOption(
            provider="aliyun",
            samplerate=8000,
            speed=1.5,
            volume=6,
            speaker="s",
            codec="pcm",
            subtitle=False,
            emotion="sad",
            app_id="a",
            secret_id="i",
            secret_key="k",
            endpoint="e",
            extra={"x": "y"},
            max_concurrent_tasks=2,
            wait_input_timeout=7,
            cache_key="c",
        ),
        eou=EouOption(type="t", endpoint="e", secret_key="k", secret_id="i", timeout=8, extra={"x": "y"}),
        recorder=RecorderOption(recorder_file="f", samplerate=8000, ptime=100, format="ogg"),
        media_pass=MediaPassOption(
            url="ws://x", input_sample_rate=8000, output_sample_rate=24000, packet_size=640, ptime=20
        ),
        sip=SipOption(username="u", password="p", realm="r", contact="sip:c@x", headers={"X-A": "1"}),
        amd=AmdOption(greeting=2000, silence=800, timeout=5000),
        handshake_timeout=9,
        enable_ipv6=True,
        extra={"a": "b"},
        inactivity_timeout=10,
        subscribe=True,
    )


def test_every_refer_key_is_understood() -> None:
    """Section 3.2; autoHangup is true unless said otherwise."""
    command = decode(
        "refer",
        caller="a",
        callee="b",
        options={
            "denoise": True,
            "timeout": 5,
            "moh": "http://x/m.wav",
            "asr": {},
            "autoHangup": False,
            "sip": {},
            "callId": "c",
            "pauseParentAsr": True,
        },
    )
    assert command == Refer(
        caller="a",
        callee="b",
        options=ReferOption(
            denoise=True,
            timeout=5,
            moh="http://x/m.wav",
            asr=TranscriptionOption(),
            auto_hangup=False,
            sip=SipOption(),
            call_id="c",
            pause_parent_asr=True,
        ),
    )
    assert ReferOption().auto_hangup is True


def test_unknown_keys_and_nulls_are_as_if_absent() -> None:
    """Newer Go clients send keys that this version does not know."""
    assert option(
        ambiance={}, ringbackDetection=[1], realtime={"x": None}, caller=None, vad=None, recorder={"ptime": None}
    ) == CallOption(recorder=RecorderOption())


# -- leniencies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["tts", "asr", "vad", "recorder"])
@pytest.mark.parametrize("key", ["samplerate", "sampleRate", "sample_rate"])
def test_samplerate_aliases(part: str, key: str) -> None:
    """Go's ASR option says sampleRate next to the TTS option's samplerate."""
    assert getattr(option(**{part: {key: 8000}}), part).samplerate == 8000


@pytest.mark.parametrize(
    ("part", "key", "field"),
    [
        ("asr", "model", "model_type"),
        ("asr", "model_type", "model_type"),
        ("vad", "speech_padding", "speech_padding"),
        ("vad", "silence_padding", "silence_padding"),
        ("vad", "voice_threshold", "voice_threshold"),
        ("vad", "silence_timeout", "silence_timeout"),
        ("tts", "max_concurrent_tasks", "max_concurrent_tasks"),
        ("tts", "wait_input_timeout", "wait_input_timeout"),
        ("mediaPass", "inputSamplerate", "input_sample_rate"),
        ("mediaPass", "outputSamplerate", "output_sample_rate"),
        ("eou", "apiKey", "secret_key"),
    ],
)
def test_option_aliases(part: str, key: str, field: str) -> None:
    """Each other spelling means the canonical key."""
    value: object = "x" if field in ("model_type", "secret_key") else 1
    base = {"url": "ws://x"} if part == "mediaPass" else {}
    name = {"mediaPass": "media_pass"}.get(part, part)
    assert getattr(getattr(option(**{part: {**base, key: value}}), name), field) == value


@pytest.mark.parametrize("key", ["enableIpv6", "enableIPv6", "enable_ipv6"])
def test_enable_ipv6_aliases(key: str) -> None:
    """Three spellings are in use."""
    assert option(**{key: True}) == CallOption(enable_ipv6=True)


def test_offer_alias() -> None:
    """`sdp` is the successor's name for `offer`."""
    assert option(sdp="v=0") == CallOption(offer="v=0")


def test_refer_options_alias() -> None:
    """`option` for `options`."""
    assert decode("refer", caller="a", callee="b", option={"timeout": 5}) == Refer(
        caller="a", callee="b", options=ReferOption(timeout=5)
    )


@pytest.mark.parametrize(
    ("key", "value", "command"),
    [
        ("auto_hangup", True, Tts(text="", auto_hangup=True)),
        ("wait_input_timeout", 5, Tts(text="", wait_input_timeout=5)),
        ("play_id", "p", Tts(text="", play_id="p")),
        ("end_of_stream", True, Tts(text="", end_of_stream=True)),
    ],
)
def test_tts_aliases(key: str, value: object, command: Command) -> None:
    """The snake_case forms."""
    assert decode("tts", text="", **{key: value}) == command


@pytest.mark.parametrize(("name", "kind"), [("mute", Mute), ("unmute", Unmute)])
def test_track_id_alias(name: str, kind: type[Mute | Unmute]) -> None:
    """`track_id`."""
    assert decode(name, track_id="t") == kind(track_id="t")


def test_the_canonical_key_wins_over_an_alias() -> None:
    """Unless it is null."""
    assert option(
        asr={"model": "b", "modelType": "a", "sample_rate": 1, "sampleRate": 2, "samplerate": 3}
    ) == CallOption(asr=TranscriptionOption(model_type="a", samplerate=3))
    assert option(sdp="b", offer=None) == CallOption(offer="b")


def test_every_alias_of_the_tables_is_tried_above() -> None:
    """A new alias needs its test."""
    tried = Path(__file__).read_text()
    spelled = [alias for aliases in (*ALIASES.values(), *CLASS_ALIASES.values()) for alias in aliases]
    assert [alias for alias in spelled if f'"{alias}"' not in tried and f"{alias}=" not in tried] == []


@pytest.mark.parametrize("seconds", [30, "30", "30s"])
def test_handshake_timeout_has_three_shapes(seconds: object) -> None:
    """All are in the wild."""
    assert option(handshakeTimeout=seconds) == CallOption(handshake_timeout=30)


def test_timeouts_and_sample_rates_may_be_strings_of_digits() -> None:
    """`timeout` of refer and eou, and every sample rate."""
    assert decode("refer", caller="a", callee="b", options={"timeout": "30"}) == Refer(
        caller="a", callee="b", options=ReferOption(timeout=30)
    )
    assert option(
        eou={"timeout": "5"},
        asr={"sampleRate": "8000"},
        mediaPass={"url": "u", "inputSampleRate": "8000", "outputSampleRate": "24000"},
    ) == CallOption(
        eou=EouOption(timeout=5),
        asr=TranscriptionOption(samplerate=8000),
        media_pass=MediaPassOption(url="u", input_sample_rate=8000, output_sample_rate=24000),
    )


def test_unset_rates_of_media_pass_and_period_of_the_recorder_are_the_defaults() -> None:
    """Go sends 0 for what was not set."""
    assert option(
        mediaPass={"url": "u", "inputSampleRate": 0, "outputSampleRate": 0}, recorder={"ptime": 0}
    ) == CallOption(media_pass=MediaPassOption(url="u"), recorder=RecorderOption())


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False)])
def test_booleans_may_be_strings(text: str, value: bool) -> None:
    """The documentation itself shows `"graceful":"false"`."""
    assert decode("interrupt", graceful=text) == Interrupt(graceful=value)
    assert option(denoise=text) == CallOption(denoise=value)


# -- strictness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"command":"tts"}', "text: required"),
        ('{"command":"tts","text":null}', "text: required"),
        ('{"command":"tts","text":5}', "text: expected a string, got a number"),
        ('{"command":"tts","text":"a","playId":1}', "playId: expected a string, got a number"),
        ('{"command":"tts","text":"a","play_id":1}', "play_id: expected a string, got a number"),
        ('{"command":"tts","text":"a","autoHangup":1}', "autoHangup: expected true or false, got 1"),
        ('{"command":"tts","text":"a","autoHangup":"True"}', 'autoHangup: expected true or false, got "True"'),
        ('{"command":"tts","text":"a","waitInputTimeout":"5"}', 'waitInputTimeout: expected an integer, got "5"'),
        ('{"command":"tts","text":"a","waitInputTimeout":5.0}', "waitInputTimeout: expected an integer, got 5.0"),
        ('{"command":"tts","text":"a","waitInputTimeout":true}', "waitInputTimeout: expected an integer, got true"),
        (
            '{"command":"tts","text":"a","waitInputTimeout":-1}',
            "waitInputTimeout: expected an integer from 0 to 2147483647, got -1",
        ),
        ('{"command":"tts","text":"a","option":{"speed":"1"}}', 'option.speed: expected a number, got "1"'),
        ('{"command":"tts","text":"a","option":{"speed":1e999}}', "option.speed: expected a finite number"),
        ('{"command":"tts","text":"a","option":[]}', "option: expected an object, got an array"),
        ('{"command":"play"}', "url: required"),
        ('{"command":"reject"}', "reason: required"),
        ('{"command":"reject","reason":"a","code":200}', "code: expected a status from 400 to 699, got 200"),
        ('{"command":"refer","caller":"a"}', "callee: required"),
        ('{"command":"history","speaker":"a"}', "text: required"),
        ('{"command":"invite"}', "option: required"),
        ('{"command":"accept","option":"x"}', "option: expected an object, got a string"),
        (
            '{"command":"invite","option":{"asr":{"samplerate":"x"}}}',
            'option.asr.samplerate: expected an integer, got "x"',
        ),
        (
            '{"command":"invite","option":{"vad":{"samplerate":0}}}',
            "option.vad.samplerate: expected a sample rate in Hz, got 0",
        ),
        (
            '{"command":"invite","option":{"handshakeTimeout":"1m"}}',
            'option.handshakeTimeout: expected an integer, got "1m"',
        ),
        ('{"command":"invite","option":{"extra":{"a":1}}}', "option.extra.a: expected a string, got a number"),
        (
            '{"command":"invite","option":{"extra":{"\\n":1}}}',
            "option.extra.(odd key): expected a string, got a number",
        ),
        ('{"command":"invite","option":{"mediaPass":{}}}', "option.mediaPass.url: required"),
        ('{"command":"dance"}', 'command: unknown command "dance"'),
        ('{"command":7}', "command: expected a string, got 7"),
        ("{}", "command: required"),
        ("[]", "expected a JSON object, got an array"),
        ("7", "expected a JSON object, got something else"),
        ("", "not JSON: Expecting value at line 1 column 1"),
        ('{"command":"mute","trackId":NaN}', "not JSON: NaN is no number"),
        (
            '{"command":"history","speaker":"\\ud800","text":""}',
            "speaker: expected a string, got half of a surrogate pair",
        ),
        ('{"command":"mute","trackId":' + "9" * 5000 + "}", "not JSON that we take: a number is too long"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(text: str, said: str) -> None:
    """A wrong type is never bent into a right one."""
    assert problem(text) == said


def test_secrets_are_in_no_message() -> None:
    """Neither as the wrong value of their key, nor inside a value of another kind, nor when the JSON is broken."""
    secret = "hunter2"
    for text in (
        json.dumps({"command": "invite", "option": {"asr": {"secretKey": [secret]}}}),
        json.dumps({"command": "invite", "option": {"asr": {"secretKey": 4711}}}),
        json.dumps({"command": "invite", "option": {"sip": secret}}),
        json.dumps({"command": "invite", "option": {"sip": {"password": {"x": secret}}}}),
        json.dumps({"command": "invite", "option": {"tts": {"extra": secret}}}),
        f'{{"command":"invite","option":{{"password":"{secret}"',
    ):
        said = problem(text)
        assert secret not in said
        assert "4711" not in said


def test_a_message_has_a_size_and_a_depth() -> None:
    """Both are checked, and neither can crash the reader."""
    assert problem(" " * (MAX_MESSAGE + 1)) == f"a message has at most {MAX_MESSAGE} bytes"
    assert problem("ä" * (MAX_MESSAGE // 2 + 1)) == f"a message has at most {MAX_MESSAGE} bytes"
    deep = '{"command":"pause","x":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}"
    assert problem(deep) == f"nested deeper than {MAX_DEPTH}"
    assert problem("[" * 500_000) == f"nested deeper than {MAX_DEPTH}"
    assert decode_command(deep.replace("[", "", 2).replace("]", "", 2)) == Pause()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_KEYS = sorted(
    {camel(field.name) for kind in (*get_args(Command), CallOption, ReferOption) for field in attrs.fields(kind)}
    | {alias for aliases in ALIASES.values() for alias in aliases}
)
_OBJECTS = st.dictionaries(st.sampled_from(_KEYS), _JSON | st.dictionaries(st.sampled_from(_KEYS), _JSON), max_size=6)


@given(_JSON | _OBJECTS, st.sampled_from([kind.name for kind in get_args(Command)]) | st.text(max_size=6))
def test_any_json_is_a_command_or_a_wire_error(value: object, name: str) -> None:
    """Nothing else comes out, what is understood can be written and read again, and no secret shows."""
    for data in (value, {**value, "command": name} if isinstance(value, dict) else value):
        control_json(json.dumps(data).encode())


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_command_or_a_wire_error(text: str) -> None:
    """Bytes included, as a text frame could carry them."""
    with pytest.raises(WireError):
        decode_command(text)


# -- commands written again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "command"), COMMANDS)
def test_a_command_survives_being_written(text: str, command: Command) -> None:
    """What the dump file holds means the same command."""
    assert decode_command(encode_command(command)) == command


def test_a_dumped_command_has_its_keys_and_no_secrets() -> None:
    """Given keys under their canonical names, unknown ones gone, credentials masked."""
    command = decode(
        "invite",
        nonsense=1,
        option={
            "caller": "sip:a@x",
            "asr": {"secretKey": "hunter2", "sampleRate": 8000, "extra": {"api_key": "hunter2", "x": "y"}},
            "sip": {"username": "u", "password": "hunter2", "headers": {"Authorization": "hunter2"}},
            "recorder": {},
        },
    )
    assert json.loads(encode_command(command)) == {
        "command": "invite",
        "option": {
            "caller": "sip:a@x",
            "asr": {"secretKey": "***", "samplerate": 8000, "extra": {"api_key": "***", "x": "y"}},
            "sip": {"username": "u", "password": "***", "headers": {"Authorization": "***"}},
            "recorder": {},
        },
    }


def test_credentials_are_in_no_repr() -> None:
    """Logs print options."""
    parts = (
        SipOption(password="hunter2"),
        TranscriptionOption(secret_id="hunter2", secret_key="hunter2", app_id="hunter2"),
        SynthesisOption(secret_id="hunter2", secret_key="hunter2", app_id="hunter2"),
        VadOption(secret_id="hunter2", secret_key="hunter2"),
        EouOption(secret_id="hunter2", secret_key="hunter2"),
    )
    assert "hunter2" not in repr(parts)


# -- merging and listings -------------------------------------------------------------------------------------------


def test_a_commands_synthesis_option_is_laid_over_the_calls() -> None:
    """Only what was given counts; extra is merged key by key."""
    call = SynthesisOption(provider="aliyun", speed=1.5, volume=7, extra={"a": "1", "b": "2"})
    command = SynthesisOption(speed=1.0, speaker="s", extra={"b": "3"})
    assert merge_synthesis(call, command) == SynthesisOption(
        provider="aliyun", speed=1.0, volume=7, speaker="s", extra={"a": "1", "b": "3"}
    )
    assert merge_synthesis(call, None) == call
    assert merge_synthesis(None, command) == command
    assert merge_synthesis(None, None) == SynthesisOption()


def test_the_list_of_calls_is_the_golden_one() -> None:
    """The union of both documented forms; credentials stripped."""
    calls = [
        CallSummary(
            session_id="s.0d6b",
            call_type=CallType.SIP,
            started_at=1761812100000,
            ringing_at=1761812101000,
            option=CallOption(
                caller="sip:bot@198.51.100.7",
                callee="sip:700@198.51.100.9",
                asr=TranscriptionOption(provider="tencent", language="zh", secret_id="i", secret_key="k"),
                tts=SynthesisOption(provider="aliyun", secret_key="k"),
                sip=SipOption(username="bot", password="x", headers={"X-Campaign": "autumn", "X-Token": "x"}),
            ),
        ),
        CallSummary(
            session_id="s.0d6c",
            call_type=CallType.WEBSOCKET,
            started_at=1761812102417,
            answered_at=1761812103000,
            duration=7,
        ),
    ]
    assert calls_body(calls) == json.loads((GOLDEN / "calls.json").read_text())
    assert calls_body([]) == json.loads((GOLDEN / "calls_empty.json").read_text())
