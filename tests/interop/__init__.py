"""The server against programs that other people wrote, on real sockets."""
