"""What tests of voice agents need: an in-memory network, a scripted phone, scripted speech, virtual time.

`open_wire` makes the network, `open_phone` puts a phone on it (or on the real network), `run_virtual` runs it all
under a clock that jumps. Import each from its own module: wire, network, ports, phone, speech, run, wer.
"""
