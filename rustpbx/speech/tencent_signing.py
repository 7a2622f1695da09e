"""How requests to Tencent Cloud are signed: WebSocket URLs with HMAC-SHA1, its HTTP API with TC3-HMAC-SHA256.

What is signed of a WebSocket URL are the values as they are, not as they are percent-encoded, over the name of the real
service, wherever the request is sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import attrs

from rustpbx.speech.socket import secret

SERVICE = "tencent"
LIFETIME = 24 * 3600
"""Seconds that a signed URL is good for."""


@attrs.frozen
class Credentials:
    """An account: `app_id` is a number, the others come from the console's API keys."""

    app_id: str
    secret_id: str = attrs.field(repr=False)
    secret_key: str = attrs.field(repr=False)


def credentials(app_id: str | None, secret_id: str | None, secret_key: str | None) -> Credentials:
    """Each of the three by its option, else its environment variable. Raises `SpeechError` that names a missing one."""
    return Credentials(
        secret(app_id, "TENCENT_APPID", SERVICE),
        secret(secret_id, "TENCENT_SECRET_ID", SERVICE),
        secret(secret_key, "TENCENT_SECRET_KEY", SERVICE),
    )


def sign(text: str, key: str) -> str:
    """Base64 of the HMAC-SHA1 of a text."""
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha1).digest()).decode()


def signed_target(to_sign: str, params: Mapping[str, str], key: str, *, name: str) -> str:
    """The query of a WebSocket URL: the sorted parameters, and the signature under `name`.

    `to_sign` is what precedes the parameters in the string to sign: `asr.cloud.tencent.com/asr/v2/1250000000`,
    `GETtts.cloud.tencent.com/stream_ws`.
    """
    ordered = sorted(params.items())
    signature = sign(f"{to_sign}?{'&'.join(f'{field}={value}' for field, value in ordered)}", key)
    query = "&".join(f"{field}={quote(value, safe='')}" for field, value in ordered)
    return f"{query}&{name}={quote(signature, safe='')}"


def websocket_base(endpoint: str | None, host: str) -> str:
    """Scheme and host of a WebSocket: the service's own, or those of the endpoint."""
    if not endpoint:
        return f"wss://{host}"
    scheme, _, rest = endpoint.rstrip("/").partition("://")
    return f"{'wss' if scheme.lower() in ('https', 'wss') else 'ws'}://{rest}"


def tc3_authorization(account: Credentials, *, host: str, body: bytes, timestamp: int, content_type: str) -> str:
    """The `Authorization` of a POST to the TTS API (API 3.0, TC3-HMAC-SHA256)."""
    date = datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d")
    scope = f"{date}/tts/tc3_request"
    headers = f"content-type:{content_type}\nhost:{host}\n"
    request = "\n".join(["POST", "/", "", headers, "content-type;host", hashlib.sha256(body).hexdigest()])
    to_sign = "\n".join(["TC3-HMAC-SHA256", str(timestamp), scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"TC3{account.secret_key}".encode()
    for part in (date, "tts", "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={account.secret_id}/{scope}"
    return f"TC3-HMAC-SHA256 {credential}, SignedHeaders=content-type;host, Signature={signature}"
