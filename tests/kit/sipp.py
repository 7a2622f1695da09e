"""sipp as a peer: its scenarios written as the steps of a call, and a run of one.

    CALLER.invite(body=audio()), expect(200), CALLER.request("ACK"), *CALLER.hangs_up()

Each step is one element of a scenario. A message that is not the one expected ends sipp with an error.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from tests.kit.real import LOOPBACK, free_port

SDP = "application/sdp"
CONTACT = "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>"
TARGET = "sip:800@[remote_ip]:[remote_port]"
TAGGED = "[peer_tag_param]"

INVITED = {"Via": "via", "From": "caller", "To": "callee", "CSeq": "cseq"}
"""What to keep of an INVITE that is answered after other messages."""


async def sipp(folder: Path, scenario: str, *options: str) -> None:
    """Run one call of a scenario to its end; fails with sipp's own errors unless it exits with 0."""
    command = ["sipp", "-sf", scenario, "-i", LOOPBACK, "-mi", LOOPBACK, "-m", "1", "-nostdin"]
    limits = ["-timeout", "60s", "-timeout_error", "-trace_err", "-error_file", "errors.log"]
    done = await trio.run_process(
        [*command, *limits, *options], cwd=folder, check=False, capture_stdout=True, stderr=subprocess.STDOUT
    )
    errors = folder / "errors.log"
    said = errors.read_text() if errors.exists() else done.stdout.decode()
    assert done.returncode == 0, f"sipp exited with {done.returncode}: {said}"


# -- steps ----------------------------------------------------------------------------------------------------------


def audio(*attributes: str, port: str = "[media_port]", formats: str = "0", version: int = 1) -> str:
    """A session description with one stream of audio. Its `version` counts up with each change."""
    lines = ["v=0", f"o=sipp 1 {version} IN IP4 [local_ip]", "s=-", "c=IN IP4 [media_ip]", "t=0 0"]
    lines += [f"m=audio {port} RTP/AVP {formats}", *(f"a={attribute}" for attribute in attributes), ""]
    return "\n".join(lines)


def expect(what: str | int, keep: Mapping[str, str] | None = None, /, **matching: str) -> str:
    """Wait for a request, or a response with that status.

    `keep` names variables for header fields of it. What is `matching` are patterns that header fields must fit, an
    underscore in a name standing for the hyphen: `Session_Expires="90;refresher=uac"`.
    """
    kind = f'response="{what}"' if isinstance(what, int) else f'request="{what}"'
    checked = {field.replace("_", "-"): pattern for field, pattern in matching.items()}
    looks = [_look(field, ".*", variable) for field, variable in (keep or {}).items()]
    looks += [_look(field, pattern, f"seen_{number}") for number, (field, pattern) in enumerate(checked.items())]
    return (
        f'<recv {kind} rrs="true"><action>{"".join(looks)}</action></recv>' if looks else f'<recv {kind} rrs="true"/>'
    )


def _look(field: str, pattern: str, variable: str) -> str:
    return f'<ereg regexp="{pattern}" search_in="hdr" header="{field}:" check_it="true" assign_to="{variable}"/>'


def respond(status: str, *fields: str, body: str = "", kind: str = SDP) -> str:
    """Answer the request that has just come: `respond("200 OK")`. To an INVITE within a dialog as well."""
    known = ["[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]"]
    return _send(f"SIP/2.0 {status}", *known, CONTACT, *fields, body=body, kind=kind)


def pause(milliseconds: int) -> str:
    """Do nothing for a while."""
    return f'<pause milliseconds="{milliseconds}"/>'


@attrs.frozen
class Party:
    """Who sipp is in a call: what its requests have in From and in To. A callee adds its tag to the To of an INVITE."""

    ours: str
    theirs: str
    tag: str = ""

    def invite(self, *fields: str, body: str = "", cseq: int = 1) -> str:
        """Begin a call."""
        return self._request("INVITE", TARGET, *fields, body=body, cseq=cseq, branch=f"INVITE{cseq}")

    def cancel(self, cseq: int = 1) -> str:
        """Take back an `invite`."""
        return self._request("CANCEL", TARGET, cseq=cseq, branch=f"INVITE{cseq}")

    def request(self, method: str, *fields: str, body: str = "", kind: str = SDP, cseq: int = 1) -> str:
        """Send a request within the dialog; an ACK has the CSeq of its INVITE."""
        return self._request(method, "[next_url]", *fields, body=body, kind=kind, cseq=cseq, branch=f"{method}{cseq}")

    def takes_no(self, status: int, cseq: int = 1, *, within: bool = False, **matching: str) -> tuple[str, str]:
        """A refusal of an INVITE, and its ACK; `within` the dialog or not."""
        target = "[next_url]" if within else TARGET
        return expect(status, None, **matching), self._request("ACK", target, cseq=cseq, branch=f"INVITE{cseq}")

    def answers(self, status: str, *fields: str, body: str = "", contact: str = CONTACT) -> str:
        """Answer the INVITE of which `INVITED` was kept, whatever has come since."""
        who = ["From: [$caller]", f"To: [$callee]{self.tag}", "Call-ID: [call_id]", "CSeq: [$cseq]"]
        return _send(f"SIP/2.0 {status}", "Via: [$via]", *who, contact, *fields, body=body)

    def hangs_up(self, cseq: int = 2) -> tuple[str, str]:
        """Its BYE, and the 200."""
        return self.request("BYE", cseq=cseq), expect(200, None, CSeq="BYE")

    def is_hung_up(self) -> tuple[str, str]:
        """Our BYE, and its 200."""
        return expect("BYE"), respond("200 OK")

    def _request(
        self, method: str, uri: str, *fields: str, cseq: int, branch: str, body: str = "", kind: str = SDP
    ) -> str:
        trying = '\n<recv response="100" optional="true"/>' if method == "INVITE" else ""
        theirs = self.theirs.removesuffix(TAGGED) if uri == TARGET and method != "ACK" else self.theirs
        via = f"Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=z9hG4bK-[pid]-{branch}"
        who = [f"From: {self.ours}", f"To: {theirs}", "Call-ID: [call_id]", f"CSeq: {cseq} {method}"]
        start = f"{method} {uri} SIP/2.0"
        return _send(start, via, *who, CONTACT, "Max-Forwards: 70", *fields, body=body, kind=kind) + trying


def callee(tag: str) -> Party:
    """Sipp as one of the phones that a call comes to."""
    return Party(f"[$callee];tag=[pid]{tag}", "[$caller]", f";tag=[pid]{tag}")


CALLER = Party("<sip:sipp@[local_ip]:[local_port]>;tag=[pid]caller", f"<{TARGET}>{TAGGED}")
CALLEE = callee("callee")


def _send(*lines: str, body: str, kind: str = SDP) -> str:
    head = [*lines, *([f"Content-Type: {kind}"] if body else []), "Content-Length: [len]"]
    return "<send><![CDATA[\n{}\n\n{}]]></send>".format("\n".join(head), body)


def scenario(*steps: str) -> str:
    """A whole scenario. sipp refuses variables that nothing refers to."""
    text = "\n".join(steps)
    variables = ",".join(sorted(set(re.findall('assign_to="(.*?)"', text))))
    known = f'<Reference variables="{variables}"/>\n' if variables else ""
    return f'<?xml version="1.0" encoding="ISO-8859-1" ?>\n<scenario name="steps">\n{text}\n{known}</scenario>\n'


@asynccontextmanager
async def playing(folder: Path, steps: Sequence[str], *options: str, tcp: bool = False) -> AsyncIterator[int]:
    """Sipp with these steps, at the port that it has; the block ends when sipp has come to the end of them.

    `options` are sipp's own. It is ready for calls by TCP, if not for those by UDP, which are sent again.
    """
    port = free_port(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    media = free_port(socket.SOCK_DGRAM, count=4)
    media += media % 2
    (folder / "steps.xml").write_text(scenario(*steps), encoding="iso-8859-1")
    where = ("-p", str(port), "-mp", str(media), "-t", "t1" if tcp else "u1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sipp, folder, "steps.xml", *where, *options)
        if tcp and steps[0].startswith("<recv"):
            await _listening(port)
        yield port


async def _listening(port: int) -> None:
    """Wait until somebody listens there: a refused connection, unlike a lost datagram, is final."""
    with trio.fail_after(30):
        while True:
            try:
                stream = await trio.open_tcp_stream(LOOPBACK, port)
            except OSError:
                await trio.sleep(0.05)
            else:
                await stream.aclose()
                return
