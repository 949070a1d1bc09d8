"""`python -m bsmamba2`, the command line where `bsm` is not on the PATH."""

from bsmamba2.cli import main

main()
