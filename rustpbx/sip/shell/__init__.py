"""SIP meets the network: the only part of `sip` with sockets, tasks and a clock."""
