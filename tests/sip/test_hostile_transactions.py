"""Two transaction layers over a hostile wire: every request has one result in its time, and nothing stays behind."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from rustpbx.sip.message import Response
from rustpbx.sip.tables import InviteClient
from rustpbx.sip.timing import Timing
from tests.kit.hostile import Hostile, Kind, Wire
from tests.kit.hostile_transactions import Asked, Node, Served, fork
from tests.kit.peers_sip import ALICE, BOB, Packet
from tests.kit.rounds import while_it_lasts

METHODS = ["INVITE", "INVITE", "INVITE", "OPTIONS", "BYE", "INFO"]
PROVISIONALS = [100, 180, 183]
FINALS = [200, 202, 302, 404, 486, 500, 603]


class Transactions(Hostile):
    """Both sides ask, both answer; each machine is held against the books of its user."""

    @initialize(seed=st.integers(0, 2**16), reliable=st.booleans(), cut=st.booleans())
    def start(self, seed: int, reliable: bool, cut: bool) -> None:
        """Two layers; over a stream nothing is lost and nothing resent."""
        timing = Timing(reliable=reliable, ring_limit=5.0)
        self.nodes = [Node(ALICE, BOB, seed, timing), Node(BOB, ALICE, seed + 1, timing)]
        self.timing = timing
        self.cut = cut
        self.wire = Wire(self.nodes, Kind.RELIABLE if reliable else Kind.HOSTILE)

    # -- the users ----------------------------------------------------------------------------------------------------

    @rule(one=st.integers(0, 1), method=st.sampled_from(METHODS))
    def ask(self, one: int, method: str) -> None:
        """A side starts a request."""
        self.wire.put(self.nodes[one].ask(method, self.wire.now))

    @precondition(lambda self: self.served())
    @rule(data=st.data(), status=st.sampled_from([*PROVISIONALS, *FINALS]))
    def answer(self, data: st.DataObject, status: int) -> None:
        """A side answers what it was asked, perhaps once more than it should."""
        node, served = self.pick(data, self.served()[-6:])
        self.wire.put(node.answer(served, status, self.wire.now))

    @precondition(lambda self: self.ringing())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """A side cancels an INVITE that rings."""
        node, asked = self.pick(data, self.ringing())
        self.wire.put(node.cancel(asked, self.wire.now))

    # -- the wire's own tricks ----------------------------------------------------------------------------------------

    @precondition(lambda self: self.successes())
    @rule(data=st.data(), number=st.integers(1, 2))
    def fork(self, data: st.DataObject, number: int) -> None:
        """Another branch of an INVITE answers as well."""
        self.wire.flying.append(fork(self.pick(data, self.successes()), number))

    @precondition(lambda self: self.requests() and self.wire.kind is Kind.HOSTILE)
    @rule(data=st.data())
    def refuse_to_send(self, data: st.DataObject) -> None:
        """The transport finds no route for a request, or an ACK, of ours."""
        packet = self.pick(data, self.requests())
        self.wire.flying.remove(packet)
        node = next(node for node in self.nodes if node.address == packet.source)
        self.wire.put(node.unsendable(packet, self.wire.now))

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def every_transaction_is_where_its_books_say(self) -> None:
        """States, results and their times; a layer holds just what is not over."""
        if not self.started:
            return
        now = self.wire.now
        for node in self.nodes:
            for asked in node.asked:
                asked.check(now)
            for served in node.served:
                assert served.transaction.state is served.expected(now)
            assert node.layer.serving == sum(not served.transaction.done for served in node.served)
            assert node.layer.counters["bugs"] == 0

    @invariant()
    def timers_are_the_tables(self) -> None:
        """Armed is what the table lists for the state; no deadline lies in the past."""
        if not self.started:
            return
        assert self.wire.deadline() >= self.wire.now
        for node in self.nodes:
            for machine in node.machines():
                assert machine.armed.keys() == machine.table.timers.get(machine.state, frozenset())

    def teardown(self) -> None:
        """No more questions, all answered: after 64*T1 of quiet nothing is left; over a good wire twice that."""
        if not self.started:
            return
        for node, asked in self.ringing():
            self.wire.put(node.cancel(asked, self.wire.now))
        self.answer_all()
        end = self.wire.now + (1 if self.cut else 2) * self.timing.limit + self.timing.t4
        for _ in while_it_lasts(lambda: self.wire.deadline() <= end):
            self.wire.wait_until(self.wire.deadline())
            if self.cut:
                self.wire.flying.clear()
            for _ in while_it_lasts(lambda: self.wire.flying):
                self.wire.settle()
                self.answer_all()
        for node in self.nodes:
            assert (node.layer.running, node.layer.unanswered, len(node.layer.schedule)) == (0, 0, 0)
            assert not node.layer._merged
            assert [asked.result[1] for asked in node.asked if not asked.result[1]] == []

    # -- helpers ------------------------------------------------------------------------------------------------------

    def answer_all(self) -> None:
        """Answer what is open."""
        for node, served in self.served():
            if served.open:
                self.wire.put(node.answer(served, 486, self.wire.now))

    def served(self) -> list[tuple[Node, Served]]:
        """What was asked of either side and is not over."""
        return [(node, one) for node in self.nodes for one in node.served if not one.transaction.done]

    def ringing(self) -> list[tuple[Node, Asked]]:
        """INVITEs that may be cancelled."""
        proceeding = InviteClient.PROCEEDING
        return [(node, one) for node in self.nodes for one in node.asked if one.transaction.state is proceeding]

    def requests(self) -> list[Packet]:
        """Requests in flight."""
        return [packet for packet in self.wire.flying if not isinstance(packet.message, Response)]

    def successes(self) -> list[Packet]:
        """2xx to INVITEs in flight."""
        return [packet for packet in self.wire.flying if packet.title in {"200 INVITE", "202 INVITE"}]


TestTransactions = Transactions.TestCase
TestTransactions.settings = settings(stateful_step_count=40, deadline=None)
