"""The bodies that are too large for a row, wherever they are stored.

Theory of operation. A content store (`model.ContentStore`) is a directory of this machine
(`directory`), rows of the database (`database`), or an object store (`objects`). `Contents`
chooses: new content goes to the store of the setting `content_store`, and a row of `messages`
names the store of its own content, so that old content is found after the setting has changed.

A message is acknowledged after three steps: its content is claimed (a row of `loose_contents`), the
content is written and durable, and one transaction deletes the claim and adds the message. So
content is named by a claim or by a message at any moment, and after a crash the ledger (`ledger`)
has what must be removed: no store has to be searched. A claim that is old is withdrawn first, and
its content is removed after that is committed; a node that was only slow finds its claim missing,
adds no message and acknowledges nothing. No clock has to be right for this.
"""
