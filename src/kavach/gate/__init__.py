"""What may leave: the only way from untrusted bytes to a result."""
