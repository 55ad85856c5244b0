"""Counting requests in moving windows: in this process, or in a Redis server that several share."""
