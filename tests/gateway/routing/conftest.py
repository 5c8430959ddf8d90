import pytest


@pytest.fixture(autouse=True)
def openai_door_only(no_chains_and_skills: None) -> None:
    """No test of this folder looks at another door."""
