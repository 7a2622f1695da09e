"""The server inside another Trio program: calls as objects, commands as methods, events as an async iterator."""
