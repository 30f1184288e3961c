"""Keys, certificates and sealed values, and the files that hold them."""
