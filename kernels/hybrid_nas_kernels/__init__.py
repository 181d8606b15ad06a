"""The operations that hybrid models are made of: a reference each, fast ways beside it, one signature."""
