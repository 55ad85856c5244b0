"""Our own REST surface, and the simple paths beside it."""
