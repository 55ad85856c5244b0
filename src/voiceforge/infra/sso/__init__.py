"""Single sign-on: people whom another server knows."""
