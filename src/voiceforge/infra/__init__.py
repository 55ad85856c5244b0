"""What lives outside the process: a folder per seam, its Protocol in `base`, a module per implementation."""
