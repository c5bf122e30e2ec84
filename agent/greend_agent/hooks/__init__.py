"""Attach where somebody else writes the training loop: a module for each trainer, which it alone imports."""
