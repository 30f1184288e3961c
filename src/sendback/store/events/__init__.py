"""How often events happened."""
