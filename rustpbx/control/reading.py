"""From JSON values to attrs classes, strictly: a number is no string, and a wrong type is named with its path.

What is lenient is listed here and nowhere else, as data: `ALIASES` (other spellings of a key), `LENIENT` (fields that
take their number as a string too), `FILLED` (a zero that means "unset"). Booleans take "true" and "false" as strings
everywhere. An absent key and a null are the same; unknown keys are ignored.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping

import attrs
import cattrs

from rustpbx.errors import RustpbxError
from rustpbx.session.commands import Refer, Reject
from rustpbx.session.options import CallOption, EouOption, MediaPassOption, RecorderOption

Reader = Callable[[object], object]

MAX_INT = 2**31 - 1
SECRETS = frozenset({"secret_key", "secret_id", "password", "app_id"})
"""Fields whose values no message, log or dump may show."""


class WireError(RustpbxError):
    """Text from an agent that is no command. `path` names the key, dots between objects; "" is the whole text."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem

    def within(self, key: str) -> WireError:
        """The same error as seen from the object that holds `key`."""
        return WireError(f"{key}.{self.path}" if self.path else key, self.problem)


def camel(name: str) -> str:
    """The wire's spelling of a field: `play_id` is `playId`, `from_` is `from`."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


# -- leniencies -----------------------------------------------------------------------------------------------------

ALIASES: Mapping[str, tuple[str, ...]] = {
    "samplerate": ("sampleRate", "sample_rate"),
    "model_type": ("model", "model_type"),
    "max_concurrent_tasks": ("max_concurrent_tasks",),
    "speech_padding": ("speech_padding",),
    "silence_padding": ("silence_padding",),
    "voice_threshold": ("voice_threshold",),
    "silence_timeout": ("silence_timeout",),
    "enable_ipv6": ("enableIPv6", "enable_ipv6"),
    "input_sample_rate": ("inputSamplerate",),
    "output_sample_rate": ("outputSamplerate",),
    "auto_hangup": ("auto_hangup",),
    "wait_input_timeout": ("wait_input_timeout",),
    "play_id": ("play_id",),
    "end_of_stream": ("end_of_stream",),
    "track_id": ("track_id",),
}
"""Other spellings of a field's key, in any class that has the field. The canonical key wins, then the first here."""

CLASS_ALIASES: Mapping[tuple[type, str], tuple[str, ...]] = {
    (Refer, "options"): ("option",),
    (CallOption, "offer"): ("sdp",),
    (EouOption, "secret_key"): ("apiKey",),
}

FILLED: Mapping[tuple[type, str], frozenset[object]] = {
    (MediaPassOption, "input_sample_rate"): frozenset({0}),
    (MediaPassOption, "output_sample_rate"): frozenset({0}),
    (RecorderOption, "ptime"): frozenset({0}),
}
"""Values that some clients send for "not set": the default applies."""


def read_duration(value: object) -> int:
    """Seconds as 30, "30" or "30s"."""
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,9})s?", value)):
        return _bounded(int(match[1]), value)
    return read_int(value)


def read_number_text(value: object) -> int:
    """An integer, also as a string of digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        return _bounded(int(value), value)
    return read_int(value)


def read_rate(value: object) -> int:
    """A sample rate in Hz, also as a string of digits."""
    rate = read_number_text(value)
    if rate == 0:
        raise WireError("", "expected a sample rate in Hz, got 0")
    return rate


def read_status(value: object) -> int:
    """A SIP status that refuses: 400..699."""
    status = read_int(value)
    if not 400 <= status <= 699:
        raise WireError("", f"expected a status from 400 to 699, got {status}")
    return status


LENIENT: Mapping[str, Callable[[object], int]] = {
    "handshake_timeout": read_duration,
    "timeout": read_number_text,
    "samplerate": read_rate,
    "input_sample_rate": read_rate,
    "output_sample_rate": read_rate,
}


# -- primitives -----------------------------------------------------------------------------------------------------


def describe(value: object) -> str:
    """What a JSON value is, for an error message: short scalars are shown, the rest is only named."""
    if isinstance(value, str):
        return json.dumps(value) if len(value) <= 40 else "a long string"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "an array"
    text = json.dumps(value)
    return text if len(text) <= 40 else "a huge number"


def _kind(value: object) -> str:
    """As `describe`, but nothing of the value is shown."""
    if isinstance(value, str):
        return "a string"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    return describe(value)


def _bounded(value: int, shown: object) -> int:
    if not 0 <= value <= MAX_INT:
        raise WireError("", f"expected an integer from 0 to {MAX_INT}, got {describe(shown)}")
    return value


def read_int(value: object) -> int:
    """A JSON integer that is not negative; no quantity of the protocol is."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WireError("", f"expected an integer, got {describe(value)}")
    return _bounded(value, value)


def read_float(value: object) -> float:
    """A finite JSON number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WireError("", f"expected a number, got {describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WireError("", "expected a finite number")
    return number


def read_bool(value: object) -> bool:
    """A JSON boolean, or the strings "true" and "false"."""
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise WireError("", f"expected true or false, got {describe(value)}")


def read_str(value: object) -> str:
    """A string that can be written as UTF-8 again (JSON can spell half a surrogate pair)."""
    if not isinstance(value, str):
        raise WireError("", f"expected a string, got {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise WireError("", "expected a string, got half of a surrogate pair") from None
    return value


def _label(key: str) -> str:
    """A free key as part of a path: as it is when that is safe to print."""
    return key if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", key) else "(odd key)"


def read_strings(value: object) -> Mapping[str, str]:
    """An object whose values are strings."""
    if not isinstance(value, Mapping):
        raise WireError("", f"expected an object, got {_kind(value)}")
    result = {}
    for key, item in value.items():
        try:
            result[read_str(key)] = read_str(item)
        except WireError as error:
            raise error.within(_label(str(key))) from None
    return result


MOST_CANDIDATES = 100
"""Candidates of one command that are read."""


def read_candidates(value: object) -> tuple[str, ...]:
    """ICE candidates as text: strings, or the objects of a browser's script. Whatever else is there is left out."""
    items = value[:MOST_CANDIDATES] if isinstance(value, list) else []
    texts = (item.get("candidate") if isinstance(item, Mapping) else item for item in items)
    return tuple(text for text in texts if isinstance(text, str) and text)


# -- classes --------------------------------------------------------------------------------------------------------


def _bare(annotation: object) -> object:
    """`X` of `X | None`."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (bare,) = (part for part in typing.get_args(annotation) if part is not types.NoneType)
        return bare
    return annotation


@attrs.frozen
class _Field:
    """How one field of a class is found in a JSON object and read."""

    name: str
    keys: tuple[str, ...]
    read: Reader
    required: bool
    unset: frozenset[object]

    def find(self, data: Mapping[str, object]) -> tuple[str, object]:
        """The key in use and its value; (canonical key, None) if the field is absent."""
        for key in self.keys:
            if data.get(key) is not None:
                return key, data[key]
        return self.keys[0], None

    def is_unset(self, value: object) -> bool:
        """True for nothing, and for what stands for nothing (a bool is never a number here)."""
        return value is None or (not isinstance(value, (bool, list, dict)) and value in self.unset)


def _plan(converter: cattrs.Converter, cls: type[attrs.AttrsInstance], attribute: attrs.Attribute[object]) -> _Field:
    bare = _bare(attribute.type)
    hook = converter.get_structure_hook(bare)
    name = attribute.name
    read: Reader = LENIENT.get(name) or (lambda value: hook(value, bare))
    if (cls, name) == (Reject, "code"):
        read = read_status
    return _Field(
        name=name,
        keys=tuple(dict.fromkeys((camel(name), *CLASS_ALIASES.get((cls, name), ()), *ALIASES.get(name, ())))),
        read=read,
        required=attribute.default is attrs.NOTHING,
        unset=FILLED.get((cls, name), frozenset()),
    )


def _make_reader(
    cls: type[attrs.AttrsInstance], converter: cattrs.Converter
) -> Callable[[object, object], attrs.AttrsInstance]:
    attrs.resolve_types(cls)
    fields = tuple(_plan(converter, cls, attribute) for attribute in attrs.fields(cls))

    def read(value: object, _: object) -> attrs.AttrsInstance:
        if not isinstance(value, Mapping):
            raise WireError("", f"expected an object, got {_kind(value)}")
        given: dict[str, object] = {}
        for field in fields:
            key, item = field.find(value)
            if field.is_unset(item):
                if field.required:
                    raise WireError(key, "required")
                continue
            try:
                given[field.name] = field.read(item)
            except WireError as error:
                raise _discreet(error, field.name, item).within(key) from None
        return cls(**given)

    return read


def _discreet(error: WireError, name: str, value: object) -> WireError:
    """The error without the value, where the value may be a secret."""
    if name in SECRETS:
        return WireError("", f"expected a string, got {_kind(value)}")
    return error


def _is_strings(annotation: object) -> bool:
    return annotation == Mapping[str, str]


def make_converter() -> cattrs.Converter:
    """A cattrs converter that reads the option and command classes by the rules of this module."""
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(int, lambda value, _: read_int(value))
    converter.register_structure_hook(float, lambda value, _: read_float(value))
    converter.register_structure_hook(bool, lambda value, _: read_bool(value))
    converter.register_structure_hook(str, lambda value, _: read_str(value))
    converter.register_structure_hook_func(_is_strings, lambda value, _: read_strings(value))
    converter.register_structure_hook_factory(attrs.has, _make_reader)
    return converter
