"""The web console: pages in HTML that show what the server does, and change what it has.

A page is a function that takes a `PageCall` and returns a response. Templates are Jinja2's; htmx
replaces parts of a page; `static/console.js` has the keys, the live lists and copying. Every page
works without JavaScript but for its live parts.
"""
