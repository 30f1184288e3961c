"""The `sendback` command. Every module here imports little at its top: `--help` must be fast."""
