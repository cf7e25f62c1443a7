"""Delivery: one HTTP exchange (api), what its answer means (answers), what goes together (folding), the loop."""
