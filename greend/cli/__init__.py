"""The command `greend`."""


def main() -> None:
    """Run the command."""
