"""The chat page's tests once more, in front of the gateway and the cluster instead of a bare engine."""

from tests.chatbot.test_page import *  # noqa: F403
