"""The agent's side of the server."""
