"""Where call records go: a folder, a URL, an S3-compatible object store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

import attrs
import httpx

from rustpbx.control.wire import encode_json
from rustpbx.errors import RustpbxError
from rustpbx.media.recording.names import safe_name
from rustpbx.records.record import MediaFile, file_name
from rustpbx.shell.offload import Offload
from rustpbx.values import shown_url

CHUNK = 64 * 1024
BOUNDARY = "rustpbx-8f14e45fceea167a5a36dedd4bea2543"
"""Between the parts of a form: long enough to occur in no recording."""


class SinkError(RustpbxError):
    """A record has not been taken; it may be tried again."""


@attrs.frozen(kw_only=True)
class Parcel:
    """A call record as JSON's types, and the files that belong to it."""

    record: Mapping[str, object]
    media: tuple[MediaFile, ...] = ()
    dump: str | None = None

    @property
    def call(self) -> str:
        """The session's id."""
        return str(self.record["callId"])

    @property
    def body(self) -> bytes:
        """The record as text."""
        return encode_json(self.record).encode()

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the recordings and of the event file."""
        return (*(file.path for file in self.media), *((self.dump,) if self.dump else ()))


class Sink(Protocol):
    """Takes records. Delivering one twice must do no harm: a server may die between the delivery and knowing of it."""

    async def deliver(self, parcel: Parcel) -> None:
        """Return once it has arrived. Raises `SinkError` or OSError if it has not."""
        ...


# -- a folder -------------------------------------------------------------------------------------------------------


class FolderSink:
    """A file for each record below `root`."""

    def __init__(self, offload: Offload, root: str) -> None:
        self._offload = offload
        self._root = Path(root)

    async def deliver(self, parcel: Parcel) -> None:
        """Write it beside its place, and rename it."""
        await self._offload.thread(partial(_write, self._root, file_name(parcel.record), parcel.body))


def _write(root: Path, name: str, body: bytes) -> None:
    root.mkdir(parents=True, exist_ok=True)
    part = root / f"{name}.part"
    with part.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    part.replace(root / name)


# -- HTTP -----------------------------------------------------------------------------------------------------------


@attrs.frozen
class _Part:
    """A part of a form: its head, and its content as bytes or as a file's path, of `size` bytes."""

    head: bytes
    content: bytes | Path
    size: int


class HttpSink:
    """A POST of multipart/form-data (RFC 7578): `calllog.json`; with media `media_<track>` and `dump_events_<file>`.

    Any answer but 2xx is a failure.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        offload: Offload,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        with_media: bool = False,
    ) -> None:
        self._client = client
        self._offload = offload
        self._url = url
        self._headers = headers
        self._with_media = with_media

    async def deliver(self, parcel: Parcel) -> None:
        """Post it."""
        parts = [_Part(_head("calllog.json", "application/json"), parcel.body, len(parcel.body))]
        if self._with_media:
            parts += await self._offload.thread(partial(_file_parts, parcel))
        end = f"--{BOUNDARY}--\r\n".encode()
        size = sum(len(part.head) + part.size + 2 for part in parts) + len(end)
        headers = httpx.Headers(list(self._headers))
        headers["content-type"] = f"multipart/form-data; boundary={BOUNDARY}"
        headers["content-length"] = str(size)
        await _send(self._client, "POST", self._url, headers, self._form(parts, end))

    async def _form(self, parts: list[_Part], end: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part.head
            if isinstance(part.content, bytes):
                yield part.content
            else:
                async for chunk in _chunks(self._offload, part.content, part.size):
                    yield chunk
            yield b"\r\n"
        yield end


def _head(name: str, kind: str, file: str | None = None) -> bytes:
    # RFC 7578 section 4.2 with the escapes of browsers: what would end the quoted string does not occur in it.
    shown = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    named = "" if file is None else f'; filename="{file}"'
    text = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{shown}"{named}\r\nContent-Type: {kind}\r\n\r\n'
    return text.encode()


def _file_parts(parcel: Parcel) -> list[_Part]:
    """The files that are there; one that somebody has deleted meanwhile holds no record up."""
    parts = []
    for file in parcel.media:
        if (size := _size(file.path)) is not None:
            name = safe_name(Path(file.path).name)
            parts.append(_Part(_head(f"media_{file.track}", "application/octet-stream", name), Path(file.path), size))
    if parcel.dump is not None and (size := _size(parcel.dump)) is not None:
        name = safe_name(Path(parcel.dump).name)
        parts.append(_Part(_head(f"dump_events_{name}", "application/octet-stream", name), Path(parcel.dump), size))
    return parts


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


async def _chunks(offload: Offload, path: Path, size: int) -> AsyncIterator[bytes]:
    """`size` bytes of a file. Raises `SinkError` if it is shorter meanwhile."""
    at = 0
    while at < size:
        chunk = await offload.thread(partial(_read, path, at, min(CHUNK, size - at)))
        if not chunk:
            raise SinkError(f"{path} has become shorter")
        at += len(chunk)
        yield chunk


def _read(path: Path, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


async def _send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    headers: httpx.Headers | Mapping[str, str],
    body: AsyncIterator[bytes] | bytes,
) -> None:
    """One request. Raises `SinkError` unless it is answered with 2xx; the text has no credentials."""
    try:
        request = client.build_request(method, url, content=body, headers=headers, timeout=None)
        response = await client.send(request)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SinkError(f"{shown_url(url)}: {error or type(error).__name__}") from error
    if not response.is_success:
        raise SinkError(f"{shown_url(url)} answered {response.status_code}")


# -- S3 -------------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Bucket:
    """Where objects go, and as whom. `url` is the bucket's own, without a slash at its end."""

    url: str
    region: str
    access_key: str = attrs.field(repr=False)
    secret_key: str = attrs.field(repr=False)
    root: str = ""

    def key_url(self, name: str) -> str:
        """The URL of an object below the root."""
        key = "/".join(filter(None, (self.root.strip("/"), name)))
        return f"{self.url}/{quote(key, safe='/~')}"


HOSTS = {
    "aws": "https://{bucket}.s3.{region}.amazonaws.com",
    "aliyun": "https://{bucket}.oss-{region}.aliyuncs.com",
    "tencent": "https://{bucket}.cos.{region}.myqcloud.com",
    "gcp": "https://storage.googleapis.com/{bucket}",
    "digital_ocean": "https://{bucket}.{region}.digitaloceanspaces.com",
}
"""Where a vendor has a bucket if no endpoint is configured."""

HOSTED = ("aliyun", "tencent")
"""Vendors that want the bucket in the host's name; the others take it in the path of an endpoint."""


def bucket_url(vendor: str, bucket: str, region: str, endpoint: str) -> str:
    """The URL of a bucket. Raises `SinkError` for a vendor whose endpoint must be given."""
    if not endpoint:
        if vendor not in HOSTS:
            raise SinkError(f"[callrecord] endpoint: {vendor} has none that is known")
        return HOSTS[vendor].format(bucket=bucket, region=region)
    base = endpoint.rstrip("/") if "://" in endpoint else f"https://{endpoint.rstrip('/')}"
    parts = urlsplit(base)
    if vendor in HOSTED and not parts.netloc.startswith(f"{bucket}."):
        return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"
    return base if vendor in HOSTED else f"{base}/{bucket}"


class S3Sink:
    """Objects in a bucket: records are named as files are, media `<call>_<track>_<file>`, events `<day>_<call>...`.

    Requests are signed with AWS's Signature Version 4, by botocore.
    """

    def __init__(
        self, client: httpx.AsyncClient, offload: Offload, bucket: Bucket, *, with_media: bool = False
    ) -> None:
        self._client = client
        self._offload = offload
        self._bucket = bucket
        self._with_media = with_media

    async def deliver(self, parcel: Parcel) -> None:
        """Put all of it; the record last, so that what it names is there."""
        name = file_name(parcel.record)
        call = safe_name(parcel.call)
        if self._with_media:
            for file in parcel.media:
                await self._put_file(f"{call}_{safe_name(file.track)}_{safe_name(Path(file.path).name)}", file.path)
            if parcel.dump is not None:
                await self._put_file(f"{name[:8]}_{call}.events.jsonl", parcel.dump)
        await self._put(name, parcel.body, len(parcel.body), "application/json")

    async def _put_file(self, name: str, path: str) -> None:
        size = await self._offload.thread(partial(_size, path))
        if size is not None:  # one that somebody has deleted meanwhile holds no record up
            await self._put(name, Path(path), size, "application/octet-stream")

    async def _put(self, name: str, content: bytes | Path, size: int, kind: str) -> None:
        url = self._bucket.key_url(name)
        plain = {"content-type": kind, "content-length": str(size)}
        headers = await self._offload.thread(partial(_signed, self._bucket, url, plain, content))
        body = content if isinstance(content, bytes) else _chunks(self._offload, content, size)
        await _send(self._client, "PUT", url, headers, body)


def _signed(bucket: Bucket, url: str, headers: dict[str, str], content: bytes | Path) -> dict[str, str]:
    """The headers of a signed PUT. Raises `SinkError` where botocore is not installed."""
    try:
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - large, and only for those who have such a store
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.credentials import Credentials  # noqa: PLC0415
    except ImportError as error:
        raise SinkError("an object store needs botocore: pip install 'rustpbx[s3]'") from error
    auth = S3SigV4Auth(Credentials(bucket.access_key, bucket.secret_key), "s3", bucket.region or "us-east-1")
    if isinstance(content, bytes):
        request = AWSRequest("PUT", url, dict(headers), content)
        auth.add_auth(request)
        return dict(request.headers.items())
    with content.open("rb") as file:
        request = AWSRequest("PUT", url, dict(headers), file)
        auth.add_auth(request)
        return dict(request.headers.items())
