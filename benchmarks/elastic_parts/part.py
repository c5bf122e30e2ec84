"""What the parts have in common: how they are run by themselves, and away from any daemon."""

import argparse
import contextlib
import json
import os


def main(measure, doc):
    """Measure as the command line says; show the figures, the last line as one JSON object."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nets and seeds")
    figures = measure(parser.parse_args().quick)
    for name, value in figures.items():
        print(f"{name:<28} {value:.6g}")
    print(json.dumps(figures))


@contextlib.contextmanager
def at_socket(path):
    """Inside, agents look for their daemon at a path."""
    before = os.environ.get("GREEND_SOCKET")
    os.environ["GREEND_SOCKET"] = str(path)
    try:
        yield
    finally:
        os.environ.pop("GREEND_SOCKET")
        if before is not None:
            os.environ["GREEND_SOCKET"] = before
