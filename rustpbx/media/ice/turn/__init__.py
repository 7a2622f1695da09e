"""TURN (RFC 8656): addresses of relays, for peers that no direct path leads to.

`relays.py` has all relays of an agent; `relay.py` is one allocation with its permissions and channels, each of them a
`Grant`, stepped by the one table in `tables.py`. `message.py` writes and reads what passes, `server.py` says where to
and who we are there. Whatever leads to a peer by way of a relay is an ordinary base to the rest of ICE.
"""
