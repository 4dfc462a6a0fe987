"""The built-in tools through `vllm serve --tool-server demo`: the real server, whose model says what a test scripts."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cells import workers
from openai import OpenAI

from vllm_gptoss.demo.server import Server, reserved_port, serve_command
from vllm_gptoss.tools import landlock

if not landlock.version():
    pytest.skip("this machine can't contain an interpreter", allow_module_level=True)

HERE = Path(__file__).parent
PYTHON = {"type": "code_interpreter", "container": {"type": "auto"}}
SEARCH = {"type": "web_search"}
DOCUMENT = "# Quokkas\nA quokka is a small wallaby.\n\nIt lives on Rottnest Island."


@contextlib.contextmanager
def serving(checkpoint: Path, folder: Path, environment: dict[str, str], *options: str) -> Iterator[OpenAI]:
    """A client of a server that was started so."""
    fixed = ("--max-model-len=2048", "--max-num-seqs=4", "--kv-cache-memory-bytes=32M", "--enforce-eager")
    script = ("--logits-processors", "scripted:Scripted")
    environment = {**environment, "PYTHONPATH": f"{environment.get('PYTHONPATH', '')}:{HERE}"}
    with (
        reserved_port() as port,
        Server(
            serve_command(checkpoint, port, "tiny", *fixed, *script, *options), port, folder / "log", environment
        ) as server,
    ):
        server.wait_healthy(300)
        with OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=120, max_retries=0) as client:
            yield client
            server.check_alive()


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """Where the interpreters of the server have their folders."""
    return tmp_path_factory.mktemp("room")


@pytest.fixture(scope="module")
def client(tiny_checkpoint, tmp_path_factory, room, shell):
    documents = tmp_path_factory.mktemp("documents")
    (documents / "quokka.md").write_text(DOCUMENT)
    (documents / "long.txt").write_text("quoll words here\n" * 4000)
    environment = {
        **shell,
        "GPTOSS_SEARCH_FOLDER": str(documents),
        "TMPDIR": str(room),
        "VLLM_ENABLE_RESPONSES_API_STORE": "1",
    }
    with serving(tiny_checkpoint, room, environment, "--tool-server=demo") as client:
        yield client


def python(code: str) -> str:
    return f"<|channel|>analysis to=python code<|message|>{code}<|call|>"


def browser(function: str, arguments: str) -> str:
    return f"<|channel|>analysis to=browser.{function} code<|message|>{arguments}<|call|>"


def final(text: str) -> str:
    return f"<|channel|>final<|message|>{text}<|return|>"


def ask(client, *turns: str, tools=(PYTHON, SEARCH), **options):
    extra = {"vllm_xargs": {"script": list(turns)}, **options.pop("extra_body", {})}
    return client.responses.create(
        model="tiny", input="?", tools=list(tools), temperature=0, extra_body=extra, **options
    )


def streamed(client, *turns: str, **options):
    """All events, and the response at their end."""
    events = list(ask(client, *turns, stream=True, **options))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events, events[-1].response


def printed(response) -> list[str]:
    return [item.outputs[0].logs for item in response.output if item.type == "code_interpreter_call"]


def kinds(response) -> list[str]:
    return [item.type for item in response.output]


def assert_no_interpreter(room: Path) -> None:
    """No process and no folder of one, once its end has had its time."""
    end = time.monotonic() + 20
    while (left := [*workers(room), *room.glob("vllm-gptoss-python-*")]) and time.monotonic() < end:
        time.sleep(0.05)
    assert left == []


INCLUDE = {"include": ["code_interpreter_call.outputs"]}


def test_python_keeps_its_variables_for_one_response(client, room):
    response = ask(client, python("x = 6"), python("print(x * 7)"), final("It is 42."), **INCLUDE)
    assert kinds(response) == ["code_interpreter_call", "code_interpreter_call", "message"]
    assert [item.code for item in response.output[:2]] == ["x = 6", "print(x * 7)"]
    assert printed(response)[1] == "42\n"
    assert response.output_text == "It is 42."
    assert response.status == "completed"
    assert_no_interpreter(room)
    (again,) = printed(ask(client, python("print('x' in globals())"), final("No."), **INCLUDE))
    assert again == "False\n"


def test_what_is_printed_is_shown_where_it_is_asked_for(client):
    response = ask(client, python("print(1)"), final("One."))
    assert response.output[0].outputs is None


def test_the_model_reads_what_the_tool_says(client):
    """The prompt of the second turn is that of the first, its output, and the tool's message."""
    response = ask(client, python("print('zebra ' * 50)"), final("Zebras."))
    silent = ask(client, python("print('zebra ' * 0)"), final("Zebras."))
    said = response.usage.output_tokens_details.model_extra["tool_output_tokens"]
    assert said > 50
    assert response.usage.input_tokens - silent.usage.input_tokens >= 50


def test_code_that_fails_is_read_by_the_model(client, room):
    response = ask(client, python("1 / 0"), python("import os; os._exit(3)"), final("Oh."), **INCLUDE)
    error, end = printed(response)
    assert error.endswith("ZeroDivisionError: division by zero\n")
    assert "ended it with exit code 3" in end
    assert response.output_text == "Oh."
    assert_no_interpreter(room)


def test_search_open_find_and_cite(client):
    turns = (
        browser("search", '{"query":"quokka"}'),
        browser("open", '{"id":0}'),
        browser("find", '{"pattern":"rottnest"}'),
        final("Small wallabies【1†L2-L3】 of Rottnest【2†L0】, or not【9†L1】."),
    )
    response = ask(client, *turns)
    assert kinds(response) == ["web_search_call"] * 3 + ["message"]
    search, opened, found = (item.action for item in response.output[:3])
    assert (search.type, search.query) == ("search", "quokka")
    assert (opened.type, opened.url) == ("open_page", "file:///quokka.md")
    assert (found.type, found.pattern, found.url) == ("find_in_page", "rottnest", "file:///quokka.md")
    assert all(item.status == "completed" and item.id.startswith("ws_") for item in response.output[:3])
    text = response.output_text
    assert text.startswith("Small wallabies【1†L2-L3】")
    cited = response.output[-1].content[0].annotations
    assert [(a.type, text[a.start_index : a.end_index], a.url, a.title) for a in cited] == [
        ("url_citation", "【1†L2-L3】", "file:///quokka.md", "Quokkas"),
        ("url_citation", "【2†L0】", "file:///quokka.md", "Quokkas"),
    ]


def test_a_stream_says_the_same(client):
    turns = (
        "<|channel|>analysis<|message|>I search.<|end|><|start|>assistant" + browser("search", '{"query":"quokka"}'),
        python("print(1)"),
        final("Wallabies【0†L4】."),
    )
    events, response = streamed(client, *turns, **INCLUDE)
    done = [event.item for event in events if event.type == "response.output_item.done"]
    added = [event.item for event in events if event.type == "response.output_item.added"]
    assert kinds(response) == ["reasoning", "web_search_call", "code_interpreter_call", "message"]
    assert [item.type for item in done] == [item.type for item in added] == kinds(response)
    assert [item.id for item in done] == [item.id for item in added] == [item.id for item in response.output]
    assert [event.output_index for event in events if event.type == "response.output_item.done"] == [0, 1, 2, 3]
    assert done[1].action == response.output[1].action
    assert done[2].code == response.output[2].code == "print(1)"
    assert not [event for event in events if "mcp" in event.type]
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert deltas == done[3].content[0].text == response.output_text
    annotation = response.output[3].content[0].annotations
    assert len(annotation) == 1
    assert done[3].content[0].annotations == annotation
    shown = [event.annotation for event in events if event.type == "response.output_text.annotation.added"]
    assert [found.model_dump() for found in shown] == [found.model_dump() for found in annotation]
    plain = ask(client, *turns, **INCLUDE)
    assert [item.model_dump(exclude={"id"}) for item in plain.output] == [
        item.model_dump(exclude={"id"}) for item in response.output
    ]


BAD_CALLS = [
    browser("search", '{"query":'),
    browser("search", "[]"),
    browser("open", '{"id":{}}'),
    browser("click", '{"id":1}'),
    browser("find", "{}"),
    "<|channel|>analysis to=browser<|message|>what<|call|>",
    "<|channel|>analysis to=python.exec code<|message|>print(1)<|call|>",
]


@pytest.mark.parametrize("call", BAD_CALLS)
def test_a_call_that_is_wrong_is_no_error_of_the_request(client, call):
    for response in (ask(client, call, final("Then not.")), streamed(client, call, final("Then not."))[1]):
        assert response.status == "completed"
        assert kinds(response) in (["web_search_call", "message"], ["code_interpreter_call", "message"])
        assert response.output_text == "Then not."


def test_half_of_a_call_is_not_made(client, room):
    """The whole prints 1; its beginning would too."""
    mark = room / "made"
    code = python(f"open({str(mark)!r}, 'w')" + "\n" * 30 + "print(1)")
    for answer in (ask, lambda *args, **options: streamed(*args, **options)[1]):
        response = answer(client, code, final("?"), max_output_tokens=30)
        assert response.status == "incomplete"
        (call,) = response.output
        assert (call.type, call.status) == ("code_interpreter_call", "incomplete")
        assert not response.usage.output_tokens_details.model_extra["tool_output_tokens"]


def test_pages_that_fill_the_context_end_the_response(client):
    look = browser("open", '{"id":"file:///long.txt","num_lines":2000}')
    for answer in (ask, lambda *args, **options: streamed(*args, **options)[1]):
        response = answer(client, look, final("?"))
        assert response.status == "incomplete"
        assert kinds(response) == ["web_search_call"]


def test_calls_are_bounded_where_a_request_says_so(client):
    turns = (python("print(1)"), python("print(2)"), final("Done."))
    first, second = printed(ask(client, *turns, **INCLUDE, max_tool_calls=1))
    assert first == "1\n"
    assert second.startswith("No tool can be called any more")


def test_cursors_go_on_in_the_next_response(client):
    first = ask(client, browser("open", '{"id":"file:///quokka.md"}'), final("One【0†L1】."))
    assert first.output[-1].content[0].annotations
    turns = (browser("open", '{"id":"file:///quokka.md"}'), final("【0†L1】【1†L1】"))
    second = ask(client, *turns, previous_response_id=first.id)
    cited = second.output[-1].content[0].annotations
    assert [second.output_text[a.start_index : a.end_index] for a in cited] == ["【1†L1】"]


def test_a_client_that_goes_away_ends_the_interpreter(client, room):
    """While it waits for code, streamed and not, and between two calls."""
    endless = python("while True: pass")
    with contextlib.suppress(Exception):
        ask(client.with_options(timeout=4), python("x = 1"), endless, final("?"))
    assert_no_interpreter(room)
    stream = ask(client, endless, final("?"), stream=True)
    for event in stream:
        if event.type == "response.code_interpreter_call.completed":
            break
    end = time.monotonic() + 10
    while not workers(room) and time.monotonic() < end:
        time.sleep(0.05)
    assert workers(room)
    stream.close()
    assert_no_interpreter(room)
    stream = ask(client, python("x = 1"), final("word " * 500), stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    assert workers(room)
    stream.close()
    assert_no_interpreter(room)
