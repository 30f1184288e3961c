"""Which mail is accepted, and how it is stored."""
