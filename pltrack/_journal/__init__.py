"""Durability: the schema, the store over it, the rows that go in, and the thread that writes them."""
