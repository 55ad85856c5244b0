"""Where whole files are kept under keys: a folder of this machine, or an object store."""
