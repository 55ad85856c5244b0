"""Deepgram's `/v1/listen`, over HTTP and as a WebSocket, for its unmodified clients."""
