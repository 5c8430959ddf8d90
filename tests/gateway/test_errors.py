"""The error tree as it is drawn, and as clients see it."""

import json
import re

from gateway import errors


def tree(cls: type, depth: int = 0):
    yield depth, cls.__name__
    for child in cls.__subclasses__():
        if child.__module__.startswith(f"{errors.__name__}."):
            yield from tree(child, depth + 1)


def test_the_tree_at_the_top_of_the_file_is_the_tree():
    drawn = re.findall(r"^    ( *)([A-Z]\w+)", errors.__doc__, re.MULTILINE)
    assert [(len(indent) // 2, name) for indent, name in drawn] == list(tree(errors.GatewayError))


def test_an_error_has_openais_form_as_a_body_and_as_an_event():
    error = errors.InvalidField("Too many.", param="n")
    body = {"error": {"message": "Too many.", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}}
    assert json.loads(error.body()) == body
    assert error.event() == b"data: " + error.body() + b"\n\n"
