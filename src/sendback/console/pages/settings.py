"""To be written."""

from sendback.console.call import Page

PAGES: tuple[Page, ...] = ()
