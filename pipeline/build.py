"""`python -m pipeline.build` is `figa build`."""

import sys

from pipeline.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "build")
    sys.exit(main())
