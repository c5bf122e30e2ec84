"""`python -m greend` is the command `greend`."""

from greend.cli import main

if __name__ == "__main__":
    main()
