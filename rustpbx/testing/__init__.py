"""What tests of voice agents need: the pytest plugin, and what it stands on. `docs/testing.md` is the guide.

`house` is a whole server in memory with a phone (`handset`: in words) and an agent; `run` has virtual time. Below them:
`wire`, `network`, `ports`, `nat` (what the world is like), `matching` (which datagrams are meant), `phone` and `line`
(a SIP phone and its audio), `registrar` (a PBX for accounts), `mischief` (what the phone does wrong), `speech` and
`voice` (speech as sound that carries its words), `turn` (a relay), `ladder` (what was on the wire), `null_ports` (calls
without media).
Import each from its own module.
"""
