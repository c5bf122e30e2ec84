"""Sources of counters, one file each, behind one contract."""
