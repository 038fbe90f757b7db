"""What the server and the nodes must agree on."""
