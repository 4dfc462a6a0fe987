"""Items that a response gave out, sent back by their ids alone."""

import pytest
from openai.types.responses import ResponseOutputMessage, ResponseOutputText, ResponseReasoningItem
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.sampling_params import SamplingParams

from vllm_gptoss.rendering.serving import plain
from vllm_gptoss.serving.admission import with_items

USER = {"role": "user", "content": "Hi"}
TEXT = ResponseOutputText(type="output_text", text="Hello.", annotations=[])
MESSAGE = ResponseOutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[TEXT])
THOUGHT = ResponseReasoningItem(id="rs_1", type="reasoning", summary=[])


def stored(*output) -> ResponsesResponse:
    request = ResponsesRequest(input="Hi")
    sampling = SamplingParams(temperature=1, max_tokens=9)
    return ResponsesResponse.from_request(request, sampling, "m", 0, output=[*output], status="completed")


@pytest.mark.parametrize("kind", [{"type": "item_reference"}, {"type": None}, {}], ids=str)
def test_what_is_known_stands_in_the_prompt(seams, responses_text, kind):
    items = [USER, {"id": "msg_1", **kind}, USER]
    resolved = with_items(items, [stored(THOUGHT), stored(MESSAGE)])
    assert resolved == [USER, plain(MESSAGE), USER]
    assert "<|channel|>final<|message|>Hello.<|end|>" in responses_text(input=resolved)


@pytest.mark.parametrize("kind", [{"type": "item_reference"}, {}], ids=str)
def test_what_is_unknown_is_a_clients_error(seams, responses_result, kind):
    items = with_items([USER, {"id": "msg_2", **kind}], [stored(MESSAGE)])
    error = responses_result({"input": items}).error
    assert (error.code, error.param) == (400, "input")
    assert error.message == "input[1] refers to an unknown item, 'msg_2': send the item itself"


@pytest.mark.parametrize("wrong", [[1], None, 5], ids=str)
def test_an_id_that_is_none(seams, responses_result, wrong):
    items = with_items([{"type": "item_reference", "id": wrong}], [stored(MESSAGE)])
    assert "refers to an unknown item" in responses_result({"input": items}).error.message


def test_items_with_ids_of_their_own_are_no_references(seams):
    items = [{"id": "msg_1", **USER}, {"id": "msg_1", "type": "reasoning"}, 5]
    assert with_items(items, [stored(MESSAGE)]) == items
