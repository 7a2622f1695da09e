"""RFC 3263: which servers a SIP URI means, by what DNS says, and in which order they are tried."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rustpbx.shell.records import Kind, Naptr, Record, Srv
from rustpbx.sip.hop import Hop, Transport
from rustpbx.sip.locate import (
    MOST_HOPS,
    Question,
    Search,
    Unlocated,
    locate,
    locate_sent_by,
    order_servers,
)
from rustpbx.sip.message import Via
from rustpbx.sip.uri import parse_uri

UDP, TCP, TLS, WS, WSS = EVERYTHING = tuple(Transport)
UDP_AND_TCP = (UDP, TCP)


@attrs.define
class Dns:
    """What DNS says, and what was asked, a tuple for each step."""

    records: Mapping[tuple[str, Kind], tuple[Record, ...]] = attrs.field(factory=dict)
    asked: list[tuple[Question, ...]] = attrs.field(factory=list)

    def run(self, search: Search) -> tuple[Hop, ...] | Unlocated:
        """Answer a search's questions until it knows."""
        try:
            questions = next(search)
            while True:
                self.asked.append(questions)
                questions = search.send(tuple(self.records.get((q.name, q.kind), ()) for q in questions))
        except StopIteration as end:
            found: tuple[Hop, ...] | Unlocated = end.value
            return found


def find(
    uri: str,
    spoken: Sequence[Transport] = EVERYTHING,
    records: Mapping[tuple[str, Kind], tuple[Record, ...]] | None = None,
    fits: Callable[[str], bool] = lambda _: True,
) -> tuple[tuple[Hop, ...] | Unlocated, list[tuple[Question, ...]]]:
    """The hops for a URI, and what was asked on the way."""
    dns = Dns(records or {})
    return dns.run(locate(parse_uri(uri), spoken, random.Random(1), fits)), dns.asked


def naptr(order: int, service: str, replacement: str, preference: int = 50) -> Naptr:
    """A record as zones have it."""
    return Naptr(order, preference, "S", service, "", replacement)


EXAMPLE: Mapping[tuple[str, Kind], tuple[Record, ...]] = {
    ("example.com", "NAPTR"): (
        naptr(50, "SIPS+D2T", "_sips._tcp.example.com"),
        naptr(90, "SIP+D2T", "_sip._tcp.example.com"),
        naptr(100, "SIP+D2U", "_sip._udp.example.com"),
    ),
    ("_sips._tcp.example.com", "SRV"): (Srv(0, 0, 5061, "server1.example.com"),),
    ("_sip._tcp.example.com", "SRV"): (
        Srv(0, 1, 5060, "server1.example.com"),
        Srv(0, 2, 5060, "server2.example.com"),
    ),
    ("_sip._udp.example.com", "SRV"): (Srv(0, 0, 5060, "server2.example.com"),),
    ("server1.example.com", "ADDRESS"): ("192.0.2.1",),
    ("server2.example.com", "ADDRESS"): ("192.0.2.2", "2001:db8::2"),
    ("example.com", "ADDRESS"): ("192.0.2.80",),
}
"""The zone of the RFC's own example (4.1), with addresses."""


@pytest.mark.rfc("3263", "4.1")
def test_the_rfcs_own_example() -> None:
    """A client of TCP and UDP uses TCP first, by NAPTR; both servers of its SRV records, every address of each."""
    hops, asked = find("sip:user@example.com", UDP_AND_TCP, EXAMPLE)
    assert asked == [
        (Question("example.com", "NAPTR"),),
        (Question("_sip._tcp.example.com", "SRV"), Question("_sip._udp.example.com", "SRV")),
        (Question("server1.example.com", "ADDRESS"), Question("server2.example.com", "ADDRESS")),
        (Question("server2.example.com", "ADDRESS"),),
    ]
    assert hops == (
        Hop(TCP, ("192.0.2.1", 5060)),
        Hop(TCP, ("192.0.2.2", 5060)),
        Hop(TCP, ("2001:db8::2", 5060)),
        Hop(UDP, ("192.0.2.2", 5060)),
        Hop(UDP, ("2001:db8::2", 5060)),
    )


@pytest.mark.rfc("3263", "4.1")
def test_sips_takes_tls_only() -> None:
    """The other NAPTR records are as if they were not there."""
    hops, asked = find("sips:user@example.com", EVERYTHING, EXAMPLE)
    assert hops == (Hop(TLS, ("192.0.2.1", 5061), domain="example.com"),)
    assert asked[1] == (Question("_sips._tcp.example.com", "SRV"),)


def test_a_certificate_must_be_for_the_domain_that_was_asked_for() -> None:
    """Not for the host that DNS named, which anybody could have forged (RFC 5922 4), nor for `maddr`."""
    uri = "sips:a@example.com;maddr=192.0.2.9"
    assert find(uri) == ((Hop(TLS, ("192.0.2.9", 5061), domain="example.com"),), [])


@pytest.mark.rfc("3263", "4.1")
def test_what_a_uri_names_is_taken_although_we_would_not_choose_it() -> None:
    """`spoken` is for those that name nothing; `sips:` names TLS."""
    found = [find(uri, (UDP,))[0] for uri in ("sip:a@192.0.2.9;transport=tcp", "sips:a@192.0.2.9")]
    assert found == [
        (Hop(TCP, ("192.0.2.9", 5060)),),
        (Hop(TLS, ("192.0.2.9", 5061), domain="192.0.2.9"),),
    ]


@pytest.mark.rfc("3263", "4.1")
def test_what_we_do_not_speak_is_not_chosen() -> None:
    """With UDP alone there is no TCP, however much the zone prefers it."""
    hops, _ = find("sip:user@example.com", (UDP,), EXAMPLE)
    assert hops == (Hop(UDP, ("192.0.2.2", 5060)), Hop(UDP, ("2001:db8::2", 5060)))


@pytest.mark.rfc("3263", "4.1")
@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        ("sip:a@192.0.2.7", Hop(UDP, ("192.0.2.7", 5060))),
        ("sip:a@192.0.2.7:5080", Hop(UDP, ("192.0.2.7", 5080))),
        ("sip:a@[2001:db8::7]:5080", Hop(UDP, ("2001:db8::7", 5080))),
        ("sip:a@192.0.2.7;transport=tcp", Hop(TCP, ("192.0.2.7", 5060))),
        ("sip:a@192.0.2.7;transport=TLS", Hop(TLS, ("192.0.2.7", 5061), domain="192.0.2.7")),
        ("sip:a@192.0.2.7;transport=ws", Hop(WS, ("192.0.2.7", 80))),
        ("sips:a@192.0.2.7", Hop(TLS, ("192.0.2.7", 5061), domain="192.0.2.7")),
        ("sips:a@192.0.2.7:5070", Hop(TLS, ("192.0.2.7", 5070), domain="192.0.2.7")),
        ("sips:a@192.0.2.7;transport=tcp", Hop(TLS, ("192.0.2.7", 5061), domain="192.0.2.7")),
        ("sips:a@192.0.2.7;transport=ws", Hop(WSS, ("192.0.2.7", 443), domain="192.0.2.7")),
        ("sip:a@example.com;maddr=192.0.2.9", Hop(UDP, ("192.0.2.9", 5060))),
        ("sip:a@example.com:5080;maddr=192.0.2.9;transport=tcp", Hop(TCP, ("192.0.2.9", 5080))),
    ],
)
def test_a_literal_address_asks_nobody(uri: str, hop: Hop) -> None:
    """The transport is the URI's, else UDP, or TLS for sips; the port is the URI's, else the transport's own."""
    assert find(uri) == ((hop,), [])


@pytest.mark.rfc("3263", "4.2")
@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        ("sip:a@example.com:5080", Hop(UDP, ("192.0.2.80", 5080))),
        ("sips:a@example.com:5080", Hop(TLS, ("192.0.2.80", 5080), domain="example.com")),
        ("sip:a@example.com:5080;transport=tcp", Hop(TCP, ("192.0.2.80", 5080))),
    ],
)
def test_a_name_with_a_port_is_a_host(uri: str, hop: Hop) -> None:
    """Neither NAPTR nor SRV are asked for."""
    assert find(uri, EVERYTHING, EXAMPLE) == ((hop,), [(Question("example.com", "ADDRESS"),)])


@pytest.mark.rfc("3263", "4.2")
def test_a_transport_parameter_skips_naptr() -> None:
    """The SRV records of that transport decide."""
    hops, asked = find("sip:a@example.com;transport=udp", EVERYTHING, EXAMPLE)
    assert hops == (Hop(UDP, ("192.0.2.2", 5060)), Hop(UDP, ("2001:db8::2", 5060)))
    assert asked[0] == (Question("_sip._udp.example.com", "SRV"),)


@pytest.mark.rfc("3263", "4.1")
def test_without_naptr_each_transport_of_ours_is_asked_for() -> None:
    """All at once; the ones that the zone has are tried in our order."""
    records = {key: value for key, value in EXAMPLE.items() if key[1] != "NAPTR"}
    hops, asked = find("sip:a@example.com", UDP_AND_TCP, records)
    assert asked[:2] == [
        (Question("example.com", "NAPTR"),),
        (Question("_sip._udp.example.com", "SRV"), Question("_sip._tcp.example.com", "SRV")),
    ]
    assert isinstance(hops, tuple)
    assert [hop.transport for hop in hops] == [UDP, UDP, TCP, TCP, TCP]


@pytest.mark.rfc("3263", "4.2")
@pytest.mark.parametrize(
    ("uri", "hop"),
    [
        ("sip:a@example.com", Hop(UDP, ("192.0.2.80", 5060))),
        ("sips:a@example.com", Hop(TLS, ("192.0.2.80", 5061), domain="example.com")),
        ("sip:a@example.com;transport=tcp", Hop(TCP, ("192.0.2.80", 5060))),
        ("sip:a@example.com;transport=ws", Hop(WS, ("192.0.2.80", 80))),
    ],
)
def test_without_any_srv_the_name_is_a_host(uri: str, hop: Hop) -> None:
    """Its addresses, and the transport's own port."""
    hops, asked = find(uri, EVERYTHING, {("example.com", "ADDRESS"): ("192.0.2.80",)})
    assert (hops, asked[-1]) == ((hop,), (Question("example.com", "ADDRESS"),))


def test_a_name_without_a_dot_is_one_of_our_own_network() -> None:
    """No zone has it, so only its address is asked for."""
    hops, asked = find("sip:a@kamailio", (UDP,), {("kamailio", "ADDRESS"): ("10.0.0.9",)})
    assert (hops, asked) == ((Hop(UDP, ("10.0.0.9", 5060)),), [(Question("kamailio", "ADDRESS"),)])


@pytest.mark.parametrize(
    ("uri", "spoken", "records", "problem"),
    [
        ("tel:+15550100", EVERYTHING, {}, "no server is named by tel:"),
        ("sip:a@192.0.2.1", (), {}, "192.0.2.1 is to be reached by any transport, which we do not speak"),
        ("sip:a@192.0.2.1;transport=sctp", EVERYTHING, {}, "192.0.2.1 is to be reached by SCTP, which we do not speak"),
        ("sip:a@nowhere.test", EVERYTHING, {}, "cannot resolve nowhere.test"),
        (
            "sip:a@gone.test;transport=udp",
            EVERYTHING,
            {("_sip._udp.gone.test", "SRV"): (Srv(0, 0, 0, ""),), ("gone.test", "ADDRESS"): ("192.0.2.1",)},
            "the SRV records of gone.test name no host that has an address",
        ),
    ],
)
def test_where_there_is_no_server(
    uri: str, spoken: Sequence[Transport], records: Mapping[tuple[str, Kind], tuple[Record, ...]], problem: str
) -> None:
    """It is said why; a zone that says "not here" (RFC 2782: the target `.`) is believed."""
    assert find(uri, spoken, records)[0] == Unlocated(problem)


def test_addresses_of_a_family_that_we_do_not_speak_are_left_out() -> None:
    """With an IPv4 socket, IPv6 hosts are as if they had no address."""
    records: Mapping[tuple[str, Kind], tuple[Record, ...]] = {
        ("both.test", "ADDRESS"): ("2001:db8::1", "192.0.2.1"),
        ("six.test", "ADDRESS"): ("2001:db8::6",),
    }
    found = [
        find(f"sip:a@{name}:5060", (UDP,), records, lambda address: ":" not in address)[0]
        for name in ("both.test", "six.test")
    ]
    assert found == [(Hop(UDP, ("192.0.2.1", 5060)),), Unlocated("six.test has no address of our family")]


@pytest.mark.rfc("3263", "5")
@pytest.mark.parametrize(
    ("via", "hops"),
    [
        (Via("TCP", "192.0.2.7", 5070), (Hop(TCP, ("192.0.2.7", 5070)),)),
        (Via("TLS", "192.0.2.7"), (Hop(TLS, ("192.0.2.7", 5061), domain="192.0.2.7"),)),
        (Via("TCP", "example.com", 5070), (Hop(TCP, ("192.0.2.80", 5070)),)),
        (Via("UDP", "example.com"), (Hop(UDP, ("192.0.2.2", 5060)), Hop(UDP, ("2001:db8::2", 5060)))),
        (Via("TCP", "other.test"), Unlocated("cannot resolve other.test")),
        (Via("SCTP", "192.0.2.7"), Unlocated("we do not speak SCTP")),
    ],
)
def test_where_a_response_goes_by_its_via(via: Via, hops: tuple[Hop, ...] | Unlocated) -> None:
    """A literal or a port is taken as it is; a bare name by the SRV records of the Via's transport, then as a host."""
    assert Dns(EXAMPLE).run(locate_sent_by(via, random.Random(1))) == hops


@pytest.mark.rfc("2782", "")
def test_equal_priorities_are_drawn_by_weight() -> None:
    """Three times the weight is about three times as often first; weight 0 hardly ever."""
    records = [Srv(0, 30, 5060, "big"), Srv(0, 10, 5060, "small"), Srv(0, 0, 5060, "none"), Srv(1, 99, 5060, "backup")]
    rng = random.Random(3)
    firsts = Counter(order_servers(records, rng)[0].target for _ in range(4000))
    assert set(firsts) == {"big", "small", "none"}
    assert 2.5 < firsts["big"] / firsts["small"] < 3.5
    assert firsts["none"] < 200


servers = st.lists(
    st.builds(
        Srv,
        st.integers(0, 3),
        st.integers(0, 65535),
        st.integers(1, 65535),
        st.sampled_from(["a.test", "b.test", "c.test", ""]),
    ),
    max_size=12,
)


@given(servers, st.integers())
def test_an_order_holds_every_server_once_and_priorities_rise(records: list[Srv], seed: int) -> None:
    """Whatever the weights are; the same lot gives the same order, whichever way the records came."""
    ordered = order_servers(records, random.Random(seed))
    assert Counter(ordered) == Counter(records)
    assert [record.priority for record in ordered] == sorted(record.priority for record in records)
    assert ordered == order_servers(reversed(records), random.Random(seed))


zones = st.fixed_dictionaries(
    {
        ("a.test", "NAPTR"): st.lists(
            st.builds(
                naptr,
                st.integers(0, 2),
                st.sampled_from(["SIP+D2U", "SIP+D2T", "SIPS+D2T", "SIP+D2S", "E2U+SIP"]),
                st.sampled_from(["_sip._udp.a.test", "_sip._tcp.a.test", "_sips._tcp.a.test", "_sip._udp.b.test", ""]),
            ),
            max_size=4,
        ).map(tuple),
        ("_sip._udp.a.test", "SRV"): servers.map(tuple),
        ("_sip._tcp.a.test", "SRV"): servers.map(tuple),
        ("_sips._tcp.a.test", "SRV"): servers.map(tuple),
        ("a.test", "ADDRESS"): st.lists(st.sampled_from(["192.0.2.1", "2001:db8::1"])).map(tuple),
        ("b.test", "ADDRESS"): st.lists(st.sampled_from(["192.0.2.2", "192.0.2.3"])).map(tuple),
    }
)


@given(
    zones,
    st.sampled_from(["sip:x@a.test", "sips:x@a.test", "sip:x@a.test;transport=tcp", "sip:x@a.test:5070"]),
    st.lists(st.sampled_from(EVERYTHING), unique=True),
    st.integers(),
)
def test_whatever_a_zone_says_the_search_ends_and_keeps_the_rules(
    zone: Mapping[tuple[str, Kind], tuple[Record, ...]], uri: str, spoken: list[Transport], seed: int
) -> None:
    """At most three kinds of questions; hops are few, distinct, in transports that we speak, secure for sips."""
    dns = Dns(zone)
    hops = dns.run(locate(parse_uri(uri), spoken, random.Random(seed)))
    assert len(dns.asked) <= 2 + max(len(spoken), 4)
    if isinstance(hops, Unlocated):
        assert hops.problem
        return
    assert 0 < len(hops) <= MOST_HOPS
    assert {hop.transport for hop in hops} <= {*spoken, TLS if uri.startswith("sips:") else TCP}
    assert not uri.startswith("sips:") or {hop.transport for hop in hops} <= {TLS, WSS}
    assert not uri.endswith(";transport=tcp") or {hop.transport for hop in hops} == {TCP}
    assert not uri.endswith(":5070") or {hop.address[1] for hop in hops} == {5070}
