"""A model's tensors become windows on their own storage, and whole again."""
