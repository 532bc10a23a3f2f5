"""HTTP on the server's own port."""
