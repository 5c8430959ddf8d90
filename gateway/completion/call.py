"""The completion path: the only code that puts admission, cache, routing and relay together."""
