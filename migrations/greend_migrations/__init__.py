"""How the history's schema came to be: Alembic's environment, run by `greend.store.migrate`."""
