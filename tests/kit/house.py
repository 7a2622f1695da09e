"""A whole server in memory, as the tests import it: see `rustpbx.testing.house`."""

from rustpbx.testing.house import AGENT, EPOCH, PHONE, SERVER, House, open_house, outside_of, server_config

__all__ = ["AGENT", "EPOCH", "PHONE", "SERVER", "House", "open_house", "outside_of", "server_config"]
