"""Parts of chunk_executor: what it plays, what it sends, and what it tells of itself."""
