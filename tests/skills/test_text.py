"""The text skill's own description; what reaches the model is tested at the door."""

from datetime import UTC, datetime

from semantic_kernel import Kernel

from skills import text


class Services:
    def now(self) -> datetime:
        return datetime.now(UTC)


def test_its_functions_are_prompts_with_described_parameters() -> None:
    plugin = Kernel().add_plugin(text.build(Services()))
    assert sorted(plugin.functions) == ["rewrite", "summarize", "translate"]
    for function in plugin.functions.values():
        assert function.is_prompt
        assert function.description
        assert all(parameter.description and parameter.is_required for parameter in function.parameters)
