"""Real DNS over loopback: a small server, dnspython's questions, and what becomes of its answers."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio

from rustpbx.shell.clock import TrioClock
from rustpbx.shell.nameservers import NameServers
from rustpbx.shell.network import RealNetwork
from rustpbx.shell.records import Answer, Naptr, Srv
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.shell.dns import Names
from rustpbx.sip.uri import parse_uri

pytestmark = pytest.mark.real_time

ZONE = {
    ("example.test.", "NAPTR"): (
        '60 IN NAPTR 50 50 "s" "SIPS+D2T" "" _sips._tcp.example.test.',
        '60 IN NAPTR 90 50 "s" "sip+d2u" "" _sip._udp.example.test.',
    ),
    ("_sip._udp.example.test.", "SRV"): ("120 IN SRV 10 5 5070 localhost.",),
    ("_sip._tcp.example.test.", "SRV"): ("120 IN SRV 0 0 0 .",),
}
SOA = "600 IN SOA ns.example.test. root.example.test. 1 7200 3600 1209600 30"


def reply(data: bytes) -> bytes | None:
    """The answer of the server; None for the name about which it is silent."""
    query = dns.message.from_wire(data)
    question = query.question[0]
    name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    if name == "silent.test.":
        return None
    response = dns.message.make_response(query)
    if name == "broken.test.":
        response.set_rcode(dns.rcode.SERVFAIL)
    elif (name, kind) in ZONE:
        response.answer.append(dns.rrset.from_text_list(name, *_ttl_and_data(ZONE[name, kind], kind)))
    else:
        response.authority.append(dns.rrset.from_text("test.", 600, "IN", "SOA", SOA.split(" ", 3)[3]))
        if name == "nowhere.test.":
            response.set_rcode(dns.rcode.NXDOMAIN)
    return response.to_wire()


def _ttl_and_data(lines: tuple[str, ...], kind: str) -> tuple[int, str, str, list[str]]:
    split = [line.split(" ", 3) for line in lines]
    return int(split[0][0]), "IN", kind, [words[3] for words in split]


@asynccontextmanager
async def name_server() -> AsyncIterator[tuple[str, int]]:
    """A DNS server on a UDP port of loopback."""
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))

    async def serve() -> None:
        while True:
            data, peer = await sock.recvfrom(4096)
            answer = reply(data)
            if answer is not None:
                await sock.sendto(answer, peer)

    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield sock.getsockname()
            nursery.cancel_scope.cancel()


async def test_records_and_their_ttl() -> None:
    """NAPTR and SRV as values, upper case where case does not matter, names without their final dot."""
    async with name_server() as address:
        servers = NameServers([address])
        answer = await servers.ask("example.test", "NAPTR")
        assert (set(answer.records), answer.ttl) == (
            {
                Naptr(50, 50, "S", "SIPS+D2T", "", "_sips._tcp.example.test"),
                Naptr(90, 50, "S", "SIP+D2U", "", "_sip._udp.example.test"),
            },
            60.0,
        )
        assert await servers.ask("_sip._udp.example.test", "SRV") == Answer((Srv(10, 5, 5070, "localhost"),), 120.0)
        assert await servers.ask("_sip._tcp.example.test", "SRV") == Answer((Srv(0, 0, 0, ""),), 120.0)


@pytest.mark.rfc("2308", "5")
async def test_that_there_is_none_holds_as_the_zone_says() -> None:
    """No such name, or none of that kind: the SOA's minimum is the TTL."""
    async with name_server() as address:
        servers = NameServers([address])
        assert await servers.ask("nowhere.test", "SRV") == Answer((), 30.0)
        assert await servers.ask("_sip._tls.example.test", "SRV") == Answer((), 30.0)


async def test_a_failing_server_is_an_error() -> None:
    """SERVFAIL, and names that no DNS message can hold."""
    async with name_server() as address:
        servers = NameServers([address])
        for name in ("broken.test", "x" * 64 + ".test", "a..test"):
            with pytest.raises(OSError, match="no answer about SRV"):
                await servers.ask(name, "SRV")


async def test_a_name_of_the_hosts_file_has_no_zone(tmp_path: Path) -> None:
    """It is not asked about, nor are its services; what stands in a comment is."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n10.0.0.9 PBX.office pbx # ours.example\n")
    async with name_server() as address:
        servers = NameServers([address], hosts)
        names = ("pbx.office", "_sip._udp.PBX.office", "pbx", "ours.example")
        assert [(await servers.ask(name, "SRV")).ttl for name in names] == [60.0, 60.0, 60.0, 30.0]


@pytest.mark.rfc("3263", "4.2")
async def test_a_sip_uri_is_located_over_the_real_network() -> None:
    """NAPTR and SRV from the server, the address of `localhost` from the hosts file."""
    async with name_server() as address:
        network = RealNetwork(NameServers([address]))
        names = Names(network, TrioClock(), random.Random(1), lambda ip: ip == "127.0.0.1")
        assert await names.locate(parse_uri("sip:x@example.test"), [Transport.UDP]) == (
            Hop(Transport.UDP, ("127.0.0.1", 5070)),
        )
