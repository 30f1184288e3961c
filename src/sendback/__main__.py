"""`python -m sendback` is the `sendback` command."""

from sendback.cli.main import main

main()
