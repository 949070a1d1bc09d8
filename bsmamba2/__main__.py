"""`python -m bsmamba2` runs the command line where `bsm` is not on the PATH."""

from bsmamba2.cli import main

main()
