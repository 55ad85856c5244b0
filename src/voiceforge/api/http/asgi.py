"""What ASGI's messages mean to those who stand in between."""

STARTED = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})
"""With one of these a reply begins: what goes wrong before can still be told by another."""
