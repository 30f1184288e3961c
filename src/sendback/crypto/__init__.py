"""Keys, certificates and sealed values, and their files."""
