"""LiteLLM does a task with functions."""

import os

import pytest

pytestmark = pytest.mark.skipif("LITELLM" not in os.environ, reason="`make clients` installs it and names its Python")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_task_with_litellm(done_by, task, calls, streamed):
    done = done_by(os.environ["LITELLM"], "litellm_client.py", streamed=streamed)
    assert done["answer"] == task.turns[-1].answer
    assert done["called"] == [list(call) for call in calls]
