"""Requests that forbid what the form of their answer needs: a 400 names the parameter, at once or in the middle.

Beside them stand requests that only look so, and are answered.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import pytest
import xgrammar
from matching import CITY, VOCABULARY, chat, compiler, responses
from openai import APIError
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

from vllm_gptoss.grammar.backend import END_TOKENS
from vllm_gptoss.grammar.dead_end import CAUSES, cause, forbidden
from vllm_gptoss.grammar.serving import turn_grammar
from vllm_gptoss.parsers.harmony import CHANNEL, END, MESSAGE, RETURN, START

FORM = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}}
CITY_OF_RESPONSES = {"text": {"format": {"type": "json_schema", "name": "city", "schema": CITY}}}
A = {"structured_outputs": {"choice": ["a"]}}
A_TOKEN, TILDE = 64, 93
ENDS = ["<|return|>", "<|call|>", "<|endoftext|>"]

CONTRADICTIONS = {
    "stop at a header": (chat(**FORM, stop_token_ids=[1, MESSAGE]), r"can't have 200008 \(<\|message\|>\) beside"),
    "stop behind the reasoning": (responses(**CITY_OF_RESPONSES, stop_token_ids=[END]), r"200007 \(<\|end\|>\)"),
    "stop at both": (
        chat(**FORM, stop_token_ids=[START, CHANNEL]),
        r"have 200006 \(.*\), 200005 \(.*\) beside",
    ),
    "a header": (chat(**FORM, bad_words=["x", " <|channel|>"]), r"bad_words can't have <\|channel\|> beside"),
    "each end": (chat(**FORM, bad_words=[*ENDS, "x"]), r"have <\|call\|>, <\|endoftext\|>, <\|return\|> beside"),
}
FINE = {
    "its own ends": chat(**FORM, stop_token_ids=[200002, 200012]),
    "other tokens": chat(**FORM, stop_token_ids=[1], bad_words=["{", "<|end|>"]),
    "some of the ends": chat(**FORM, bad_words=ENDS[:2]),
    "length": chat(**FORM, min_tokens=9, ignore_eos=True, logit_bias={str(CHANNEL): -100}),
}


@pytest.mark.parametrize(("request_", "message"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_contradiction_is_refused_at_once(request_, message):
    with pytest.raises(VLLMValidationError, match=message) as refused:
        turn_grammar(request_, ToolStrictLevel.AUTO)
    assert str(refused.value).startswith(refused.value.parameter)


@pytest.mark.parametrize("request_", FINE.values(), ids=FINE)
def test_what_can_be_answered_is_not_refused(request_):
    assert turn_grammar(request_, ToolStrictLevel.AUTO)


def test_without_a_form_nothing_is_refused():
    request = chat(stop_token_ids=[CHANNEL, END], bad_words=["<|channel|>", *ENDS])
    assert turn_grammar(request, ToolStrictLevel.AUTO) is None


def test_bad_words_forbid_their_last_token_behind_the_others():
    words = [[1], [2, 3], [4, 5, 6]]
    assert forbidden(words, []) == {1}
    assert forbidden(words, [2]) == {1, 3}
    assert forbidden(words, [5]) == {1}
    assert forbidden(words, [2, 4, 5]) == {1, 6}


@pytest.fixture(scope="module")
def cause_at():
    """`cause_at(output, refused, **fields)`, where the form is `a` or `a~`, of a request."""
    backend = SimpleNamespace(allocate_token_bitmask=lambda rows: xgrammar.allocate_token_bitmask(rows, VOCABULARY))
    compiled = compiler().compile_grammar('root ::= "a" "~"?')

    def matcher(params: SamplingParams) -> xgrammar.GrammarMatcher:
        return xgrammar.GrammarMatcher(compiled, override_stop_tokens=list(params.all_stop_token_ids))

    def at(output, refused, bad_words=(), stop=(), **fields):
        params = SamplingParams(stop_token_ids=list(stop), _bad_words_token_ids=[*bad_words], **fields)
        params.update_from_generation_config({"eos_token_id": END_TOKENS}, RETURN)
        grammar = XgrammarGrammar(VOCABULARY, matcher(params), None)
        assert grammar.accept_tokens("r", output)
        held = SimpleNamespace(grammar=grammar)
        request = SimpleNamespace(
            output_token_ids=[*output, *refused], sampling_params=params, structured_output_request=held
        )
        return cause(SimpleNamespace(backend=backend), request, refused)

    return at


def test_the_cause_is_that_which_left_no_token(cause_at):
    no_tilde, no_end = [[TILDE]], [[end] for end in END_TOKENS]
    assert cause_at([], [0], [[A_TOKEN]]) == "bad_words"
    assert cause_at([], [0], [[1, A_TOKEN]]) is None
    assert cause_at([], [0], stop=[A_TOKEN]) == "stop_token_ids"
    assert cause_at([A_TOKEN], [0], [*no_tilde, *no_end]) == "bad_words"
    assert cause_at([A_TOKEN], [0], no_end) is None
    assert cause_at([A_TOKEN], [0], no_tilde, min_tokens=2) == "min_tokens"
    assert cause_at([A_TOKEN], [0], no_tilde, min_tokens=1) is None
    assert cause_at([A_TOKEN, TILDE], [0], min_tokens=9) is None
    assert cause_at([], [0], repetition_penalty=3e38) == "repetition_penalty"
    assert cause_at([], [7, 8], [[7, A_TOKEN]]) == "bad_words"  # two were drafted


HELLO = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "completions": {"prompt": "Hello"},
    "responses": {"input": "Hello"},
}


def body(route: str, **fields) -> dict:
    length = "max_output_tokens" if route == "responses" else "max_tokens"
    return {"model": "tiny", "temperature": 0, length: 40, **HELLO[route], **fields}


def posted(client, route: str, **fields) -> httpx.Response:
    return httpx.post(f"{client.base_url}{route}", json=body(route, **fields), timeout=120)


DEAD_ENDS = {
    "bad words, chat": ("chat/completions", {**A, "bad_words": ["a"]}, "bad_words"),
    "bad words in the middle": ("chat/completions", {**A, "bad_words": ["<|start|>"]}, "bad_words"),
    "bad words at random": ("chat/completions", {**A, "bad_words": ["a"], "temperature": 1}, "bad_words"),
    "one of two": ("chat/completions", {**A, "bad_words": ["a"], "temperature": 1, "n": 2}, "bad_words"),
    "bad words, completions": ("completions", {**A, "bad_words": ["a"]}, "bad_words"),
    "no end, completions": ("completions", {**A, "bad_words": ENDS}, "bad_words"),
    "stop tokens, chat": ("chat/completions", {**A, "stop_token_ids": [A_TOKEN], "min_tokens": 9}, "stop_token_ids"),
    "stop tokens, completions": ("completions", {**A, "stop_token_ids": [A_TOKEN]}, "stop_token_ids"),
    "stop tokens, responses": ("responses", {**A, "stop_token_ids": [A_TOKEN]}, "stop_token_ids"),
}


@pytest.mark.parametrize(("route", "fields", "parameter"), DEAD_ENDS.values(), ids=DEAD_ENDS)
def test_a_dead_end_is_the_clients_error(client, route, fields, parameter):
    answer = posted(client, route, **fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("BadRequestError", parameter)
    assert error["message"].startswith(CAUSES[parameter])


@pytest.mark.parametrize(("route", "fields", "parameter"), DEAD_ENDS.values(), ids=DEAD_ENDS)
def test_a_stream_ends_with_the_error(client, route, fields, parameter):
    if route == "responses":
        *_, last = client.responses.create(stream=True, **{**body(route), "extra_body": fields})
        assert (last.type, last.response.status) == ("response.failed", "failed")
        assert last.response.error.code == "invalid_prompt"
        assert last.response.error.message.startswith(CAUSES[parameter])
        return
    data = posted(client, route, **fields, stream=True).text.strip().split("\n\n")
    assert data[-1] == "data: [DONE]"
    error = json.loads(data[-2].removeprefix("data: "))["error"]
    assert (error["code"], error["type"], error["param"]) == (400, "BadRequestError", parameter)
    assert error["message"].startswith(CAUSES[parameter])


def test_the_official_client_raises_it(client):
    stream = client.chat.completions.create(
        stream=True, extra_body={**A, "bad_words": ["a"]}, **body("chat/completions")
    )
    with pytest.raises(APIError, match="bad_words forbid each token"):
        list(stream)


def test_events_of_a_failed_response_are_numbered_and_none_is_lost(client):
    events = list(client.responses.create(stream=True, **body("responses"), extra_body={**A, "stop_token_ids": [64]}))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    items = [event.item for event in events if event.type == "response.output_item.done"]
    assert items == events[-1].response.output
    assert [item.type for item in items] == ["reasoning"]


ANSWERED = {
    "length": ("chat/completions", {**A, "min_tokens": 30}),
    "length, at random": ("chat/completions", {**A, "min_tokens": 30, "temperature": 1}),
    "length, completions": ("completions", {**A, "min_tokens": 30}),
    "its own end": ("chat/completions", {**A, "stop_token_ids": [RETURN], "min_tokens": 30}),
    "bias": ("chat/completions", {**A, "logit_bias": {str(A_TOKEN): -100}}),
    "bias, completions": ("completions", {**A, "logit_bias": {str(A_TOKEN): -100}}),
    "bias, responses": ("responses", {**A, "logit_bias": {str(A_TOKEN): -100}}),
    "another word": ("chat/completions", {**A, "bad_words": ["b"]}),
}


@pytest.mark.parametrize(("route", "fields"), ANSWERED.values(), ids=ANSWERED)
def test_the_only_token_that_is_left_is_taken(client, route, fields):
    answer = posted(client, route, **fields)
    assert answer.status_code == 200, answer.text
    answer = answer.json()
    if route == "responses":
        assert answer["output"][-1]["content"][0]["text"] == "a"
    else:
        assert answer["choices"][0].get("text", answer["choices"][0].get("message", {}).get("content")) == "a"


def test_those_beside_it_are_answered(client):
    """Requests of one batch: only the one that can't go on ends."""
    asked = [{}, {**A, "bad_words": ["a"]}, A, {**A, "stop_token_ids": [A_TOKEN]}] * 3
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda fields: posted(client, "chat/completions", **fields), asked))
    assert [answer.status_code for answer in answers] == [200, 400, 200, 400] * 3
    contents = [answer.json()["choices"][0]["message"]["content"] for answer in answers[::2]]
    assert contents == [contents[0], "a"] * 3
    assert contents[0].startswith("Hello!")
