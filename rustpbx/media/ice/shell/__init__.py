"""ICE on real sockets: `IceTransport`."""

from rustpbx.media.ice.shell.transport import IceTransport

__all__ = ["IceTransport"]
