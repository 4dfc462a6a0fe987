"""The Python Agents SDK does a task with functions, by either of its models of a server."""

import os

import pytest

pytestmark = pytest.mark.skipif(
    "AGENTS" not in os.environ, reason="`make clients` installs the SDK and names its Python"
)


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "run_streamed"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_task_with_the_agents_sdk(done_by, task, calls, api, streamed):
    done = done_by(os.environ["AGENTS"], "agents_client.py", api=api, streamed=streamed)
    assert done["answer"] == task.turns[-1].answer
    assert done["called"] == [list(call) for call in calls]
    assert done["outputs"] == [turn.call.result for turn in task.turns if turn.call]
    said = [turn.answer or turn.preamble for turn in task.turns]
    assert done["streamed"] == ("".join(filter(None, said)) if streamed else "")
