"""A conversation has one prompt, whichever API it comes by, and the prompt has all that the request says."""

import pytest
from vllm.exceptions import VLLMValidationError

from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.dialogues import DIALOGUES, TOOLS
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request

USER = {"role": "user", "content": "Hi"}
SCHEMA = {"name": "sky", "schema": {"type": "object", "properties": {"sky": {"type": "string"}}}}


@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_both_apis_give_one_prompt(dialogue, chat_text, responses_text):
    for done in range(len(dialogue.turns)):
        for fields in ({}, {"keeps_reasoning": False}, {"instructions": ""}, {"instructions": "Be kind."}):
            talk = Talk.of(dialogue, done, **fields)
            text = chat_text(**chat_request(talk))
            assert text == responses_text(**responses_request(talk))
            assert text.endswith("<|start|>assistant")


def test_several_dialogues_give_one_prompt_too(chat_text, responses_text):
    talk = Talk((dialogues.WEATHER[0], dialogues.TWO_CALLS[1]), 2, tools=TOOLS)
    text = chat_text(**chat_request(talk))
    assert text == responses_text(**responses_request(talk))
    assert dialogues.WEATHER[0].turns[0].reasoning not in text
    assert dialogues.TWO_CALLS[1].turns[0].reasoning in text


def test_the_format_of_the_answer_stands_in_the_prompt(chat_text, responses_text):
    text = chat_text(messages=[USER], response_format={"type": "json_schema", "json_schema": SCHEMA})
    assert '# Response Formats\n\n## sky\n\n{"type":"object"' in text
    assert text == responses_text(input="Hi", text={"format": {"type": "json_schema", **SCHEMA}})


@pytest.mark.parametrize(
    ("effort", "said"), [("none", "low"), ("minimal", "low"), ("high", "high"), ("xhigh", "high"), ("max", "high")]
)
def test_efforts_that_the_model_was_not_trained_on(effort, said, chat_text, responses_text):
    text = chat_text(messages=[USER], reasoning_effort=effort)
    assert f"Reasoning: {said}\n" in text
    assert text == responses_text(input="Hi", reasoning={"effort": effort})
    assert text == chat_text(messages=[USER], chat_template_kwargs={"reasoning_effort": effort})


def test_settings_of_the_template(chat_text, responses_text, online_renderer, monkeypatch):
    kwargs = {"model_identity": "You are Ada.", "reasoning_effort": "high"}
    text = chat_text(messages=[USER], chat_template_kwargs=kwargs, reasoning_effort="low")
    assert text.startswith("<|start|>system<|message|>You are Ada.\n")
    assert "Reasoning: high" in text
    assert text == responses_text(input="Hi", chat_template_kwargs=kwargs)
    monkeypatch.setattr(online_renderer, "default_chat_template_kwargs", {**kwargs, "reasoning_effort": "low"})
    assert chat_text(messages=[USER], reasoning_effort="high") == text
    assert "Reasoning: low" in responses_text(input="Hi")


def test_parts_of_text_are_one_text(chat_text, responses_text):
    parts = [{"type": "text", "text": ""}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    said = [{"type": "output_text", "text": part["text"]} for part in parts]
    text = chat_text(messages=[USER, {"role": "assistant", "content": parts}, USER])
    assert "<|channel|>final<|message|>ab<|end|>" in text
    assert text == responses_text(input=[USER, {"role": "assistant", "content": said, "type": "message"}, USER])


GO_ON = {"continue_final_message": True, "add_generation_prompt": False}


def test_a_message_goes_on(chat_text):
    for said in ({"content": "Hel"}, {"content": None, "reasoning": "Hel"}):
        messages = [USER, {"role": "assistant", **said}]
        channel = "final" if said["content"] else "analysis"
        text = chat_text(messages=messages, **GO_ON)
        assert text.endswith(f"Hi<|end|><|start|>assistant<|channel|>{channel}<|message|>Hel")


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("last", [USER, {"role": "assistant", "tool_calls": [CALL]}], ids=["user", "call"])
def test_no_other_message_goes_on(last, chat_text):
    with pytest.raises(ValueError, match="needs a last message of the assistant that has no calls"):
        chat_text(messages=[USER, last], **GO_ON)


def test_a_prompt_may_end_with_its_last_message(chat_text):
    messages = [USER, {"role": "assistant", "content": "Hello"}]
    text = chat_text(messages=messages, add_generation_prompt=False)
    assert f"{text}<|start|>assistant" == chat_text(messages=messages)


LONG = [message for i in range(20) for message in (USER, {"role": "assistant", "content": f"Answer {i}"})]


def test_truncation_leaves_out_the_oldest(chat_text, responses_text, online_renderer):
    messages = [{"role": "system", "content": "Be kind."}, *LONG, {"role": "user", "content": "Last"}]
    text = chat_text(messages=messages, truncate_prompt_tokens=150)
    assert text.startswith(chat_text(messages=messages[:1]).removesuffix("<|start|>assistant"))
    assert text.endswith("<|message|>Last<|end|><|start|>assistant")
    assert "Answer 19" in text
    assert "Answer 2<" not in text
    request = {"instructions": "Be kind.", "input": [*LONG * 10, messages[-1]], "max_output_tokens": 100}
    assert "Answer 19" in responses_text(**request, truncation="auto")
    with pytest.raises(VLLMValidationError, match="maximum context length is 2048"):
        responses_text(**request)


def test_what_must_stay_is_not_truncated(chat_text):
    with pytest.raises(ValueError, match="can't be truncated to 20 tokens: its instructions, tools and last message"):
        chat_text(messages=LONG, truncate_prompt_tokens=20)
    with pytest.raises(ValueError, match="truncation_side 'right' would cut off the last message"):
        chat_text(messages=LONG, truncate_prompt_tokens=100, truncation_side="right")


ERRORS = {
    "image": ([{"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]}], "reads text alone"),
    "unknown call": ([{"type": "function_call_output", "call_id": "c", "output": ""}], "answers the call 'c'"),
    "role": ([{"role": "critic", "content": "No"}], "has the role 'critic'"),
    "no item": ([5], "is no item"),
    "no name": ([{"type": "function_call", "call_id": "c", "arguments": "{}"}], "needs 'name' as text"),
    "no list": ([{"role": "user", "content": 5}], "neither text nor a list"),
    "no text": ([{"role": "user", "content": [{"type": "input_text", "text": 5}]}], "whose text is no text"),
}


@pytest.mark.parametrize(("items", "said"), ERRORS.values(), ids=ERRORS)
def test_wrong_items_are_a_clients_error(items, said, responses_result):
    error = responses_result({"input": [USER, *items]}).error
    assert error.code == 400
    assert error.message.startswith("input[1] ")
    assert said in error.message


def test_settings_that_say_nothing_are_a_clients_error(responses_result, chat_text):
    for kwargs, said in (({"reasoning_effort": 3}, "reasoning effort 3"), ({"model_identity": 3}, "model_identity")):
        assert said in responses_result({"input": "Hi", "chat_template_kwargs": kwargs}).error.message
        with pytest.raises(ValueError, match=said):
            chat_text(messages=[USER], chat_template_kwargs=kwargs)


def test_half_a_letter_is_no_error(responses_text):
    assert "<|message|>a\ufffd<|end|>" in responses_text(input=[{"role": "user", "content": "a\ud83d"}])


def test_what_goes_on_has_its_own_preamble(responses_result, responses_text):
    first = {"input": [{"role": "developer", "content": "Rhyme."}, USER], "instructions": "Be kind.", "tools": []}
    stored = responses_result(first).messages.copy()
    tool = {"type": "function", "name": "now", "parameters": None}
    text = responses_text(stored, input="And?", instructions="Be brief.", tools=[tool], reasoning={"effort": "low"})
    assert "# Instructions\n\nBe brief.\n\nRhyme.\n\n# Tools" in text
    assert "Be kind." not in text
    assert "Reasoning: low" in text
    assert text.count("<|start|>developer") == text.count("<|start|>system") == 1
    assert text.endswith("Hi<|end|><|start|>user<|message|>And?<|end|><|start|>assistant")
    again = responses_result({"input": "And?"}, stored).messages.copy()
    assert "# Instructions\n\nRhyme.<|end|>" in responses_text(again, input="So?")


def test_what_the_developer_says_later_stays_in_its_place(responses_result, responses_text, chat_text):
    later = [{"role": "developer", "content": "Now in verse."}, {"role": "user", "content": "And?"}]
    stored = responses_result({"input": [USER], "instructions": "Be kind."}).messages
    text = responses_text(stored, input=later, instructions="Be kind.")
    assert "Hi<|end|><|start|>developer<|message|># Instructions\n\nNow in verse.<|end|><|start|>user" in text
    assert text == chat_text(messages=[{"role": "system", "content": "Be kind."}, USER, *later])


def test_a_result_of_a_call_that_is_stored(responses_result, responses_text):
    stored = responses_result({"input": "Hi"}).messages
    call = {"type": "custom_tool_call", "call_id": "c", "name": "sed", "input": "s/a/b/"}
    result = {"type": "custom_tool_call_output", "call_id": "c", "output": "b"}
    text = responses_text(stored, [call], input=[result])
    assert "<|start|>functions.sed to=assistant<|channel|>commentary<|message|>b<|end|>" in text
