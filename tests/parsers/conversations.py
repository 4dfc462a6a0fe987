"""The conversations of the golden files, as data.

`PUBLISHED` are those of the tests of openai/harmony (tests/test_harmony.py, src/tests.rs), each under the name of its
test. `FORMS` are all the ways to write a well-formed header. What the library renders is given as messages, what it
only reads as text.
"""

from typing import NamedTuple

from openai_harmony import DeveloperContent, ReasoningEffort, SystemContent, ToolDescription

ASSISTANT, USER, SYSTEM, DEVELOPER, TOOL = "assistant", "user", "system", "developer", "tool"
JSON = "<|constrain|>json"


class Said(NamedTuple):
    role: str
    content: str | SystemContent | DeveloperContent
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    name: str | None = None


class Rendered(NamedTuple):
    """A conversation that the library writes; the machine reads all of it."""

    messages: tuple[Said, ...]
    asks: bool = False
    """It ends with the start of the answer, as a prompt does."""
    drops_reasoning: bool = True
    """Reasoning in front of a final answer is left out, as the library does by default."""


class Spelled(NamedTuple):
    """What a model generates behind `role`, or a whole conversation without one."""

    text: str
    role: str | None = ASSISTANT
    tilde: tuple[int, ...] = ()
    """The tokens of the `~`s, one each, where text cannot say them."""


def system(effort: ReasoningEffort | None = None, **fields: str) -> SystemContent:
    content = SystemContent.new()
    if effort is not None:
        content = content.with_reasoning_effort(effort)
    for name, value in fields.items():
        content = getattr(content, f"with_{name}")(value)
    return content


def prompt(*messages: Said) -> Rendered:
    return Rendered(messages, asks=True)


CHATGPT = "You are ChatGPT, a large language model trained by OpenAI."
ROBOT = Said(DEVELOPER, DeveloperContent.new().with_instructions("Answer the user's questions like a robot."))
CAPITAL = Said(USER, "What is the capital of the largest country in the world?")
SUM = Said(USER, "What is 2 + 2?")
CHANNELS = ["analysis", "final"]
SINCE = "2025-06-28"

WEATHER_FORMAT = {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"}
TOOLS = [
    ToolDescription.new("get_location", "Gets the location of the user."),
    ToolDescription.new(
        "get_current_weather",
        "Gets the current weather in the provided location.",
        parameters={
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "format": WEATHER_FORMAT,
            },
            "required": ["location"],
        },
    ),
    ToolDescription.new(
        "get_multiple_weathers",
        "Gets the current weather in the provided list of locations.",
        parameters={
            "type": "object",
            "properties": {
                "locations": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": 'List of city and state, e.g. ["San Francisco, CA", "New York, NY"]',
                },
                "format": WEATHER_FORMAT,
            },
            "required": ["locations"],
        },
    ),
    ToolDescription.new(
        "kitchensink",
        "A function with various complex schemas.",
        parameters={
            "description": "params object",
            "type": "object",
            "properties": {
                "string": {
                    "type": "string",
                    "title": "STRING",
                    "description": "A string",
                    "examples": ["hello", "world"],
                },
                "string_nullable": {
                    "type": "string",
                    "nullable": True,
                    "description": "A nullable string",
                    "default": "the default",
                },
                "string_enum": {"type": "string", "enum": ["a", "b", "c"]},
                "oneof_string_or_number": {
                    "oneOf": [
                        {"type": "string", "default": "default_string_in_oneof"},
                        {"type": "number", "description": "numbers can happen too"},
                    ],
                    "description": "a oneof",
                    "default": 20,
                },
            },
        },
    ),
]
LOOKUP = ToolDescription.new(
    "lookup_weather",
    "Use this tool to lookup the weather in a given location. Call it with the parameter 'location', "
    "can be any textual description of a location.",
    parameters={"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)

TRICKY = (
    "Hello Müller, Γειά σου, Привет, שלום, مرحبا, नमस्ते, こんにちは, 안녕하세요, 你好. "  # noqa: RUF001
    "Normalized (naïve) vs. decomposed (nai\u0308ve) characters. Some emojis: 😊👋🏾👨\u200d👩\u200d👧\u200d👦🇺🇸."
)
HALF_LETTER = 9552  # a space and the first half of an emoji
PLAIN_START = (27, 91, 5236, 91, 29)  # "<|start|>" as text

TWO_PLUS_TWO = "User asks: “What is 2 + 2?” Simple arithmetic. Provide answer."
TOKYO = '<|message|>{"location": "Tokyo"}<|call|>'
PARIS = '<|message|>{"latitude":48.8566,"longitude":2.3522}<|call|>'
LOOKS_UP = (
    '<|channel|>analysis<|message|>User asks: "What is the weather in Tokyo?" We need to use lookup_weather tool.'
)

PUBLISHED = {
    "simple_convo": prompt(Said(SYSTEM, system(model_identity=CHATGPT)), SUM),
    **{
        f"simple_convo_{effort.value.lower()}_effort{'' if robot else '_no_instruction'}": prompt(
            Said(SYSTEM, system(effort, model_identity=CHATGPT)), *robot, CAPITAL
        )
        for effort in (ReasoningEffort.LOW, ReasoningEffort.MEDIUM, ReasoningEffort.HIGH)
        for robot in ((ROBOT,), ())
    },
    "simple_reasoning_response": Spelled(
        '<|channel|>analysis<|message|>User asks: "What is 2 + 2?" Simple arithmetic. Provide answer.<|return|>'
        "<|start|>assistant<|channel|>final<|message|>2 + 2 = 4."
    ),
    "simple_tool_call": Spelled(
        f"{LOOKS_UP}<|return|><|start|>assistant to=lookup_weather<|channel|>analysis code"
        '<|message|>{"location": "Tokyo"}'
    ),
    "simple_tool_call_channel_first": Spelled(
        f"{LOOKS_UP}<|end|><|start|>assistant<|channel|>analysis to=lookup_weather code"
        '<|message|>{"location": "Tokyo"}'
    ),
    "tool_call_with_constrain": Spelled(
        f"<|start|>assistant to=functions.get_weather<|channel|>commentary {JSON}{TOKYO}", role=None
    ),
    "tool_call_with_constrain_adjacent": Spelled(
        f"<|start|>assistant to=functions.get_weather<|channel|>commentary{JSON}{TOKYO}", role=None
    ),
    "tool_call_with_channel_first_and_constrain_adjacent": Spelled(
        f"<|start|>assistant<|channel|>commentary to=functions.get_weather{JSON}{PARIS}", role=None
    ),
    "reasoning_system_message": prompt(
        Said(
            SYSTEM,
            system(ReasoningEffort.MEDIUM, model_identity=CHATGPT, required_channels=CHANNELS),
        ),
        SUM,
    ),
    "reasoning_system_message_no_instruction": prompt(
        Said(SYSTEM, system(ReasoningEffort.HIGH, model_identity=CHATGPT, required_channels=CHANNELS)),
        Said(USER, "What is the best place to eat candy in the world?"),
    ),
    "reasoning_system_message_with_dates": prompt(
        Said(
            SYSTEM,
            system(
                ReasoningEffort.MEDIUM,
                model_identity=CHATGPT,
                conversation_start_date="2021-01-01",
                knowledge_cutoff="2021-01",
                required_channels=CHANNELS,
            ),
        ),
        Said(USER, "What is 42 * pi?"),
    ),
    "render_functions_with_parameters": prompt(
        Said(SYSTEM, system(ReasoningEffort.HIGH, conversation_start_date=SINCE)),
        Said(
            DEVELOPER,
            DeveloperContent.new().with_instructions("Always respond in riddles").with_function_tools(TOOLS),
        ),
        Said(USER, "What is the weather like in SF?"),
    ),
    "no_tools": prompt(Said(SYSTEM, system(conversation_start_date=SINCE))),
    "browser_tool_only": prompt(Said(SYSTEM, system(conversation_start_date=SINCE).with_browser_tool())),
    "browser_and_function_tool": prompt(
        Said(SYSTEM, system(conversation_start_date=SINCE).with_browser_tool()),
        Said(DEVELOPER, DeveloperContent.new().with_function_tools([LOOKUP])),
    ),
    "browser_and_python_tool": prompt(
        Said(SYSTEM, system(conversation_start_date=SINCE).with_browser_tool().with_python_tool())
    ),
    "dropping_cot_by_default": prompt(
        SUM,
        Said(ASSISTANT, TWO_PLUS_TWO, "analysis"),
        Said(ASSISTANT, "2 + 2 equals 4.", "final"),
        Said(USER, "What about 9 / 2?"),
    ),
    # The library writes the tool's answer without its recipient and then cannot read it; here it has one.
    "does_not_drop_if_ongoing_analysis": prompt(
        Said(USER, "What is the weather in SF?"),
        Said(ASSISTANT, "User asks: “What is the weather in SF?” We need to use lookup_weather tool.", "analysis"),
        Said(ASSISTANT, '{"location": "San Francisco"}', "commentary", "functions.lookup_weather", JSON),
        Said(
            TOOL,
            '{"temperature": 20, "description": "sunny"}',
            recipient="assistant",
            name="functions.lookup_weather",
        ),
    ),
    "preserve_cot": Rendered(
        (
            SUM,
            Said(ASSISTANT, 'User asks a simple question: "What is 2 + 2?" The answer: 4.', "analysis"),
            Said(ASSISTANT, "2 + 2 equals 4.", "final"),
            Said(USER, "What about 9 / 2?"),
        ),
        asks=True,
        drops_reasoning=False,
    ),
    "keep_analysis_between_finals": Rendered(
        (
            SUM,
            Said(ASSISTANT, "thinking 2+2", "analysis"),
            Said(ASSISTANT, "4", "final"),
            Said(USER, "What is 3 + 5?"),
            Said(ASSISTANT, "thinking 3+5", "analysis"),
            Said(ASSISTANT, "8", "final"),
        )
    ),
    "render_and_render_conversation_roundtrip": Rendered((Said(USER, "Hello"),)),
    "render_conversation_for_training_final_channel": Spelled(
        "<|start|>user<|message|>hi<|end|><|start|>assistant<|channel|>final<|message|>hello<|return|>", role=None
    ),
    "render_conversation_for_training_non_final": Rendered((Said(USER, "hi"),)),
    "tool_response_parsing": Spelled(
        '<|start|>browser.search to=assistant<|channel|>commentary<|message|>{"result": "https://openai.com/"}',
        role=None,
    ),
    "streamable_parser": Spelled(
        '<|channel|>analysis<|message|>User asks "Who is the current US president?" It\'s 2025, presumably current '
        "president is Joe Biden? Actually as of 2025-07-28, there was a 2024 election. In 2024, President is probably "
        "President Biden still? But w\ne need up to date info. Let's browse to confirm.<|end|>"
        '<|start|>assistant<|channel|>commentary to=browser.search code<|message|>{"query": "current US president '
        'July 2025", "topn": 10, "source": "news"}<|call|><|start|>browser.search to=assistant<|channel|>commentary'
        '<|message|>{"result": "https://openai.com/"}<|end|>'
    ),
    "invalid_utf8": Spelled(
        "<|start|>assistant<|message|>~~worked<|end|>", role=None, tilde=(HALF_LETTER, HALF_LETTER)
    ),
    "invalid_utf8_split": Spelled("<|start|>assistant<|message|>~XY<|end|>", role=None, tilde=(HALF_LETTER,)),
    "invalid_utf8_multi_byte": Spelled(
        "<|start|>assistant<|message|>~ interesting<|end|>", role=None, tilde=(HALF_LETTER,)
    ),
    "invalid_utf8_no_end": Spelled(
        "<|start|>assistant<|message|>~ interesting storyY", role=None, tilde=(HALF_LETTER,)
    ),
    "does_not_leak_bytes_between_messages": Spelled(
        "<|start|>assistant<|message|>~~<|end|><|start|>assistant<|message|>Hi<|end|>",
        role=None,
        tilde=(HALF_LETTER, HALF_LETTER),
    ),
    "flushes_partial_bytes_at_the_end": Spelled("<|start|>assistant<|message|>~Hi", role=None, tilde=(HALF_LETTER,)),
    "tricky_utf8": Spelled(f"<|start|>assistant<|message|>{TRICKY}<|end|>", role=None),
    "waits_for_multi_token_utf8": Spelled("<|start|>assistant<|message|>💖<|end|>", role=None),
}

THINKS = "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant"
ARGUMENTS = '<|message|>{"city": "Köln 🌧️"}<|call|>'

FORMS = {
    "final": Spelled("<|channel|>final<|message|>Hi there.<|return|>"),
    "reasoning_and_final": Spelled(f"{THINKS}<|channel|>final<|message|>Hi there.<|return|>"),
    "empty_final": Spelled(f"{THINKS}<|channel|>final<|message|><|return|>"),
    "empty_reasoning": Spelled(
        "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>"
    ),
    "two_reasonings": Spelled(f"{THINKS}{THINKS}<|channel|>final<|message|>Hi<|return|>"),
    **{
        f"recipient_behind_{place}_{kind}": Spelled(THINKS + header + ARGUMENTS)
        for kind, content_type in {
            "constrain": f" {JSON}",
            "constrain_adjacent": JSON,
            "json": " json",
            "code": " code",
            "no_type": "",
        }.items()
        for place, header in {
            "role": f" to=functions.get_weather<|channel|>commentary{content_type}",
            "channel": f"<|channel|>commentary to=functions.get_weather{content_type}",
        }.items()
    },
    "call_in_analysis": Spelled(f"{THINKS}<|channel|>analysis to=python code<|message|>print(1)<|call|>"),
    "call_of_browser": Spelled(f"{THINKS} to=browser.search<|channel|>analysis code{ARGUMENTS}"),
    "call_by_bare_name": Spelled(f"{THINKS}<|channel|>commentary to=get_weather {JSON}{ARGUMENTS}"),
    "call_of_dashed_name": Spelled(f"{THINKS}<|channel|>commentary to=functions.web-browsing_2 {JSON}{ARGUMENTS}"),
    "call_with_grammar_type": Spelled(f"{THINKS}<|channel|>commentary to=functions.sql <|constrain|>lark{ARGUMENTS}"),
    "empty_call": Spelled(f"{THINKS}<|channel|>commentary to=functions.now {JSON}<|message|><|call|>"),
    "preamble_reasoning_and_call": Spelled(
        "<|channel|>commentary<|message|>I will look that up.<|end|><|start|>assistant"
        f"{THINKS} to=functions.get_weather<|channel|>commentary {JSON}{ARGUMENTS}"
    ),
    "two_calls": Spelled(
        f"{THINKS}<|channel|>commentary to=functions.get_weather {JSON}{ARGUMENTS}"
        f"<|start|>assistant<|channel|>commentary to=functions.get_time {JSON}{ARGUMENTS}"
    ),
    "call_and_its_result": Spelled(
        f"{THINKS}<|channel|>commentary to=functions.get_weather {JSON}{ARGUMENTS}"
        '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>{"sky": "🌧️"}<|end|>'
        "<|start|>assistant<|channel|>final<|message|>It rains.<|return|>"
    ),
    "result_with_a_type": Spelled(
        f"<|start|>functions.get_weather to=assistant<|channel|>commentary {JSON}<|message|>{{}}<|end|>", role=None
    ),
    "whole_conversation": Rendered(
        (
            Said(SYSTEM, "You answer."),
            Said(DEVELOPER, "# Instructions\n\nBe brief."),
            Said(USER, "Does it rain in Köln? 🌧️"),
            Said(ASSISTANT, "A tool knows.", "analysis"),
            Said(ASSISTANT, "I look.", "commentary"),
            Said(ASSISTANT, '{"city": "Köln"}', "commentary", "functions.get_weather", JSON),
            Said(TOOL, '{"rain": true}', "commentary", "assistant", name="functions.get_weather"),
            Said(ASSISTANT, "Yes. ☔", "final"),
        ),
        drops_reasoning=False,
    ),
    "role_with_a_recipient": Spelled("<|start|>user to=assistant<|message|>Hi<|end|>", role=None),
    "letters_over_many_tokens": Spelled(f"<|channel|>final<|message|>{TRICKY}<|return|>"),
    "control_tokens_as_plain_text": Spelled("<|channel|>final<|message|>a ~~~~~ b<|return|>", tilde=PLAIN_START),
    "cut_in_a_body": Spelled(f"{THINKS}<|channel|>final<|message|>Hi th"),
    "cut_in_a_header": Spelled(f"{THINKS}<|channel|>commentary to=functions.get_wea"),
}

CONVERSATIONS = PUBLISHED | FORMS
