"""Training of users, wherever they live: real ones on their node, synthetic ones on the server."""
