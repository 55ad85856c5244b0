"""The Wyoming protocol: how voice assistants, Home Assistant first, ask for a transcript over TCP."""
