import pytest

from vllm_gptoss.serving.model_names import other_name


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("gpt-oss-120b", "openai/gpt-oss-120b"),
        ("gpt-oss-20b-mine", "openai/gpt-oss-20b-mine"),
        ("openai/whisper", None),
        ("mine/gpt-oss-20b", None),
        ("tiny", None),
    ],
)
def test_the_publisher_may_stand_in_front_or_not(name, other):
    assert other_name(name) == other
