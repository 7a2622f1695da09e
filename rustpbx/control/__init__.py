"""The agent's side: HTTP, WebSocket and JSON in front of the sessions, and the webhook that announces calls."""
