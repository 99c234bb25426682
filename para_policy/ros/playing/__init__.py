"""Parts of chunk_executor: what it plays chunks with, and its health."""
