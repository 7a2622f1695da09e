"""Where records go: the form that a URL is posted, the objects in a store, and what waits while they are away."""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import boto3
import httpx
import pytest
import trio
from moto.server import ThreadedMotoServer

from rustpbx.outbound import open_client
from rustpbx.records.record import MediaFile, hangup_reason
from rustpbx.records.sinks import Bucket, FolderSink, HttpSink, Parcel, S3Sink, Sink, SinkError, bucket_url
from rustpbx.records.spool import Spool
from rustpbx.shell.clock import TrioClock
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.offload import InlineOffload

RECORD = {"callId": "s.1/..", "startTime": "2025-10-30T08:15:00+00:00", "callType": "sip"}
NAME = "20251030-081500_s.1_...json"


def parcel(folder: Path) -> Parcel:
    """A record with a recording and an event file."""
    (folder / "x.wav").write_bytes(b"RIFF" + bytes(200_000))
    (folder / "x.events.jsonl").write_text("{}\n")
    media = MediaFile(track="s.1", path=str(folder / "x.wav"), size=200_004)
    return Parcel(record=RECORD, media=(media,), dump=str(folder / "x.events.jsonl"))


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> httpx.AsyncClient:
    """A client whose requests are answered by a function."""
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def form_of(request: httpx.Request) -> dict[str, tuple[str | None, bytes]]:
    """The parts of a form by name: file name and content, as Python's own parser of MIME reads them."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.content)
    parts = {}
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        parts[str(part.get_param("name", header="content-disposition"))] = (part.get_filename(), content)
    return parts


async def test_a_form_has_the_record_and_its_files(tmp_path: Path) -> None:
    """The parts' names, the recording byte for byte, our header, and a length that is right."""
    requests: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(201)

    async with client_of(take) as client:
        headers = (("Authorization", "Bearer x"),)
        sink = HttpSink(client, InlineOffload(), "http://h/calls", headers=headers, with_media=True)
        await sink.deliver(parcel(tmp_path))
    (request,) = requests
    assert request.method == "POST"
    assert request.headers["authorization"] == "Bearer x"
    assert int(request.headers["content-length"]) == len(request.content)
    parts = form_of(request)
    assert list(parts) == ["calllog.json", "media_s.1", "dump_events_x.events.jsonl"]
    assert json.loads(parts["calllog.json"][1]) == RECORD
    assert parts["media_s.1"] == ("x.wav", b"RIFF" + bytes(200_000))


async def test_a_form_without_media_is_the_record_alone(tmp_path: Path) -> None:
    """`with_media = false`: no file leaves the machine."""
    names: list[list[str]] = []

    def take(request: httpx.Request) -> httpx.Response:
        names.append(list(form_of(request)))
        return httpx.Response(200)

    async with client_of(take) as client:
        await HttpSink(client, InlineOffload(), "http://h/calls").deliver(parcel(tmp_path))
    assert names == [["calllog.json"]]


async def test_a_refusal_says_so_without_the_urls_secrets(tmp_path: Path) -> None:
    """Any answer but 2xx is a failure; a token in the URL is not in its words."""
    async with client_of(lambda _: httpx.Response(302, headers={"location": "http://elsewhere/"})) as client:
        with pytest.raises(SinkError, match="302") as failure:
            await HttpSink(client, InlineOffload(), "http://u:secret@h/c?token=secret").deliver(parcel(tmp_path))
    assert "secret" not in str(failure.value)


async def test_a_folder_gets_a_file_of_its_own_for_each_record(tmp_path: Path) -> None:
    """Its name is time and call, harmless whatever the call is named; nothing half-written is beside it."""
    sink = FolderSink(InlineOffload(), str(tmp_path / "cdr"))
    await sink.deliver(Parcel(record=RECORD))
    await sink.deliver(Parcel(record=RECORD))
    assert contents(tmp_path / "cdr") == {NAME: json.dumps(RECORD, separators=(",", ":")).encode()}


def contents(folder: Path) -> dict[str, bytes]:
    """The files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@asynccontextmanager
async def spooling(sink: Sink, folder: Path, *, keep_media: bool = True) -> AsyncIterator[Spool]:
    """A spool at work."""
    spool = Spool(sink, InlineOffload(), TrioClock(0), str(folder), keep_media=keep_media)
    async with trio.open_nursery() as nursery:
        await nursery.start(spool.run)
        yield spool
        nursery.cancel_scope.cancel()


async def test_an_hour_of_failures_loses_nothing(tmp_path: Path) -> None:
    """500 for an hour: the record is on disk meanwhile, is tried ever less often, and then arrives once."""
    began, tried, arrived = trio.current_time(), [], []

    def answer(request: httpx.Request) -> httpx.Response:
        tried.append(round(trio.current_time() - began))
        if tried[-1] < 3600:
            return httpx.Response(500)
        arrived.append(json.loads(form_of(request)["calllog.json"][1]))
        return httpx.Response(200)

    async with client_of(answer) as client, spooling(HttpSink(client, InlineOffload(), "http://h/"), tmp_path) as spool:
        await spool.put(Parcel(record=RECORD))
        await trio.sleep(1800)
        assert list(contents(tmp_path)) == [NAME]
        assert spool.waiting == 1
        await trio.sleep(3600)
        assert (spool.waiting, spool.delivered) == (0, 1)
    assert arrived == [RECORD]
    assert tried[:6] == [0, 1, 3, 7, 15, 31]
    assert max(after - before for before, after in itertools.pairwise(tried)) == 300
    assert contents(tmp_path) == {}


async def test_the_next_server_sends_what_this_one_could_not(tmp_path: Path) -> None:
    """A spool that was left behind is read at the start, with its media; a foreign file stays and harms nothing."""
    folder, files = tmp_path / "spool", tmp_path / "files"
    files.mkdir()
    async with (
        client_of(lambda _: httpx.Response(503)) as client,
        spooling(HttpSink(client, InlineOffload(), "http://h/"), folder) as spool,
    ):
        await spool.put(parcel(files))
        await spool.settled()
    (folder / "other.json").write_text("[]")
    names: list[list[str]] = []

    def take(request: httpx.Request) -> httpx.Response:
        names.append(list(form_of(request)))
        return httpx.Response(200)

    async with client_of(take) as client:
        sink = HttpSink(client, InlineOffload(), "http://h/", with_media=True)
        async with spooling(sink, folder, keep_media=False) as spool:
            await spool.settled()
            await trio.sleep(1)
    assert names == [["calllog.json", "media_s.1", "dump_events_x.events.jsonl"]]
    assert list(contents(folder)) == ["other.json"]
    assert contents(files) == {}  # they have arrived, and no copy was to be kept


async def test_one_record_that_is_refused_holds_no_other_up(tmp_path: Path) -> None:
    """A sink that will not have one record takes those behind it."""
    arrived: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        call = json.loads(form_of(request)["calllog.json"][1])["callId"]
        if call == "bad":
            return httpx.Response(413)
        arrived.append(call)
        return httpx.Response(200)

    async with client_of(answer) as client, spooling(HttpSink(client, InlineOffload(), "http://h/"), tmp_path) as spool:
        for call in ("bad", "good", "better"):
            await spool.put(Parcel(record={**RECORD, "callId": call}))
        await trio.sleep(10)
        assert spool.waiting == 1
    assert sorted(arrived) == ["better", "good"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("caller", "byCaller"),
        ("system", "bySystem"),
        ("noAnswer", "noAnswer"),
        (None, "bySystem"),
        ("x", {"other": "x"}),
    ],
)
def test_reasons_have_the_words_of_records(reason: str | None, said: object) -> None:
    """Known ones by their word, others as the client's own text."""
    assert hangup_reason(reason) == said


# -- an object store ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "endpoint", "url"),
    [
        ("aws", "", "https://calls.s3.eu-central-1.amazonaws.com"),
        ("minio", "http://127.0.0.1:9000/", "http://127.0.0.1:9000/calls"),
        ("minio", "minio.example.com", "https://minio.example.com/calls"),
        ("aliyun", "https://oss-cn-hangzhou.aliyuncs.com", "https://calls.oss-cn-hangzhou.aliyuncs.com"),
        ("tencent", "", "https://calls.cos.eu-central-1.myqcloud.com"),
        ("gcp", "", "https://storage.googleapis.com/calls"),
    ],
)
def test_each_vendor_has_its_buckets_somewhere(vendor: str, endpoint: str, url: str) -> None:
    """In the host's name or in the path, at the endpoint or where the vendor always is."""
    assert bucket_url(vendor, "calls", "eu-central-1", endpoint) == url


def test_a_vendor_without_an_endpoint_is_asked_for_one() -> None:
    """Nobody knows where somebody's MinIO is."""
    with pytest.raises(SinkError, match="endpoint: minio"):
        bucket_url("minio", "calls", "", "")


@pytest.fixture
def store() -> Iterator[str]:
    """The URL of an object store on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.real_time
async def test_an_object_store_has_record_and_media_under_their_keys(store: str, tmp_path: Path) -> None:
    """What moto was put: the keys below the root, each object byte for byte."""
    account = boto3.client(
        "s3", endpoint_url=store, region_name="eu-central-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    place = {"LocationConstraint": "eu-central-1"}
    account.create_bucket(Bucket="calls", CreateBucketConfiguration=place)
    url = bucket_url("minio", "calls", "eu-central-1", store)
    bucket = Bucket(url=url, region="eu-central-1", access_key="key", secret_key="secret", root="cdr")
    async with open_client(RealNetwork()) as client:
        await S3Sink(client, InlineOffload(), bucket, with_media=True).deliver(parcel(tmp_path))
    keys = [entry["Key"] for entry in account.list_objects_v2(Bucket="calls")["Contents"]]
    objects = {key: account.get_object(Bucket="calls", Key=key)["Body"].read() for key in keys}
    assert objects == {
        f"cdr/{NAME}": json.dumps(RECORD, separators=(",", ":")).encode(),
        "cdr/s.1_.._s.1_x.wav": b"RIFF" + bytes(200_000),
        "cdr/20251030_s.1_...events.jsonl": b"{}\n",
    }


async def test_each_put_is_signed_for_its_content() -> None:
    """Signature Version 4 of the date, host, content hash and key; the secret itself is in no header."""
    requests: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200)

    bucket = Bucket(url="http://h/calls", region="eu-central-1", access_key="AKID", secret_key="topsecret")
    async with client_of(take) as client:
        await S3Sink(client, InlineOffload(), bucket).deliver(Parcel(record=RECORD))
    (request,) = requests
    authorization = request.headers["authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert "/eu-central-1/s3/aws4_request" in authorization
    assert "x-amz-content-sha256" in request.headers
    assert "topsecret" not in str(request.headers)
