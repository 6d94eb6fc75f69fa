"""`python -m pipeline.build` is `figa build`."""

import sys

from pipeline.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["build", *sys.argv[1:]]))
