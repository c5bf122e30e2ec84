"""Counters become joules: E = Σ C·P, with C from a versioned table that says where each figure is from."""
