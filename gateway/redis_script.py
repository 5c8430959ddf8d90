"""A Lua script that Redis runs, called by its digest."""

import hashlib


class Script:
    """`sha` is how Redis calls it once it has seen the text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
