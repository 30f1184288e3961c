"""Finding out what a message is: SPF, DKIM, DMARC, spam, viruses. `checks` puts it together.

SPF, DKIM and DMARC run in processes of their own (`processes`, `child`), because they work on
hostile text with libraries that cannot be interrupted otherwise.
"""
