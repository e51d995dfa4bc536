"""What outlives a request: `journal` append-only files on disk."""
