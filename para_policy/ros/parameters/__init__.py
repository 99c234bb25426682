"""Parameters of the nodes: declared, checked, read from files and written to them."""
