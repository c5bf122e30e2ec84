"""One reversible way each for a model to use less."""
