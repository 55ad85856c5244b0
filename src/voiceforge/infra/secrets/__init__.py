"""Secrets that are kept outside the settings: files, folders of files, and programs that know them."""
