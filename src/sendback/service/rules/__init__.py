"""Receipt rules: how they are changed, and how messages are processed by them."""
