"""Command line: parses, calls services, prints. Each command is a module that is imported when it is used."""
