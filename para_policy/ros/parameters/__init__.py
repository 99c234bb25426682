"""Parameters of the nodes: declared, checked, changed, read from files and written to them."""
