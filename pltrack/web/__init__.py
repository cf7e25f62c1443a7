"""The local page: what is in a journal or hub, rendered on the server, read-only."""
