"""The verdicts on a message: SPF, DKIM, DMARC, spam, viruses. `checks` combines them.

SPF, DKIM and DMARC run in processes of their own (`processes`, `child`), because they work on
hostile text with libraries that cannot be interrupted otherwise.
"""
