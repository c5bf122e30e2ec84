"""The imperative shell: everything here does something; everything it decides is decided elsewhere."""
