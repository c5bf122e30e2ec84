"""Batch norm's statistics: of each level, of each domain, and of a whole set of data."""
