"""One module per process, and the only room that reads settings and picks implementations."""
