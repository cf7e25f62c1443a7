"""`python -m pltrack`: the command line."""

from .cli import main

main()
