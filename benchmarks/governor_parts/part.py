"""What the parts have in common: how each is run by itself, and how seeds are spread over the cores."""

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor


def main(measure, doc):
    """Measure as the command line says; show the figures, the last line as one JSON object."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer seeds and steps")
    figures = measure(parser.parse_args().quick)
    for name, value in figures.items():
        print(f"{name:<28} {value:.6g}")
    print(json.dumps(figures))


def over_seeds(one, seeds, *arguments):
    """Return `one(seed, *arguments)` for each of the seeds, in their order."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, range(seeds), *([argument] * seeds for argument in arguments)))
