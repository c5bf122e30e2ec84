"""The governor: what may be spent, what a level costs, and which level follows. Pure: no I/O, no clock."""
