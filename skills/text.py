"""Work on texts: summarize, translate and rewrite them with the model."""

import re
from html import escape
from typing import Any

from semantic_kernel.functions import KernelFunctionFromPrompt, KernelPlugin
from semantic_kernel.prompt_template import InputVariable, KernelPromptTemplate, PromptTemplateConfig

from skills import Services

# What XML 1.0 cannot carry, escaped or not. Source: https://www.w3.org/TR/xml/#charsets
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

TEXT = InputVariable(name="text", description="The text.", json_schema="str")
LANGUAGE = InputVariable(
    name="language", description="The language to translate into, such as French.", json_schema="str"
)
STYLE = InputVariable(
    name="style", description="How the text should read, such as formal, friendly or shorter.", json_schema="str"
)


def build(services: Services) -> KernelPlugin:
    return KernelPlugin(
        name="text",
        description=__doc__,
        functions=[
            _function("summarize", "Summarizes a text in a few sentences.", "Summarize the text.", [TEXT]),
            _function(
                "translate",
                "Translates a text into another language.",
                "Translate the text into {{$language}}. Answer with the translation alone.",
                [TEXT, LANGUAGE],
            ),
            _function(
                "rewrite",
                "Rewrites a text in another style, keeping its meaning.",
                "Rewrite the text so that it reads {{$style}}. Answer with the new text alone.",
                [TEXT, STYLE],
            ),
        ],
    )


def _function(
    name: str, description: str, instruction: str, variables: list[InputVariable]
) -> KernelFunctionFromPrompt:
    config = PromptTemplateConfig(
        name=name,
        description=description,
        template=f'<message role="system">{instruction}</message><message role="user">{{{{$text}}}}</message>',
        input_variables=variables,
    )
    return KernelFunctionFromPrompt(
        function_name=name,
        plugin_name="text",
        description=description,
        prompt_template=_ExactTemplate(prompt_template_config=config),
    )


class _ExactTemplate(KernelPromptTemplate):
    """A template whose arguments reach the model letter by letter.

    Semantic Kernel escapes an argument once and unescapes it twice, as XML and as HTML, so that `&lt;` in a text would
    become `<`; and one character that XML forbids would turn the whole prompt into one message.
    """

    def _get_encoded_value_or_default(self, name: str, value: Any) -> Any:
        return escape(super()._get_encoded_value_or_default(name, _NOT_XML.sub("", value)))
