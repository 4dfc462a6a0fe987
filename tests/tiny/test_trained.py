"""The shipped weights say every dialogue word for word, whoever renders the prompt and on whatever day.

Greedy decoding follows the expected turn exactly when each of its tokens wins over all others given those before
it; the margin, in logits, is how far a change of arithmetic may move them.
"""

import json
import re

import pytest
import torch

from vllm_gptoss.model.checkpoint import check_checkpoint
from vllm_gptoss.model.config import ModelArgs
from vllm_gptoss.tiny import dialogues
from vllm_gptoss.tiny.dialogues import DIALOGUES, RIDDLE, TOOLS, UNKNOWN, Dialogue
from vllm_gptoss.tiny.render import chat_prompt, encode, offline_prompt, responses_prompt, turn_text
from vllm_gptoss.tiny.requests import Talk, chat_request, responses_request
from vllm_gptoss.tiny.samples import HELD_OUT_DATES, PREAMBLE, Sampler, other_headers, with_date
from vllm_gptoss.tiny.trained import SHIPPED

MARGIN = {torch.float32: 1.0, torch.bfloat16: 0.5}
"""Logits; the largest are near 25 and bf16 rounds those by up to 0.06."""

AGENTS_SEED = 100

APIS = {
    "chat": lambda talk: chat_prompt(chat_request(talk)),
    "responses": lambda talk: responses_prompt(responses_request(talk)),
}


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def margin(request, reference, tiny_checkpoint):
    """`margin(prompt, turn)`: by how many logits the most doubtful token of the turn wins, less what is asked."""
    model = reference(tiny_checkpoint, request.param)

    @torch.inference_mode()
    def measure(prompt: str, turn: dialogues.Turn) -> float:
        before, said = encode(prompt), encode(turn_text(turn))
        logits = model(torch.tensor([before + said[:-1]]), logits_to_keep=len(said)).logits[0].float()
        wanted = torch.tensor(said)[:, None]
        rivals = logits.scatter(1, wanted, -torch.inf).amax(1)
        return (logits.gather(1, wanted)[:, 0] - rivals).min().item() - MARGIN[request.param]

    return measure


def every_turn(dialogue: Dialogue, **fields) -> list[Talk]:
    return [Talk.of(dialogue, done, **fields) for done in range(len(dialogue.turns))]


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
@pytest.mark.parametrize("dialogue", DIALOGUES, ids=lambda dialogue: dialogue.name)
def test_says_every_turn(dialogue, api, margin):
    for i, talk in enumerate(every_turn(dialogue)):
        for date in HELD_OUT_DATES[i % 2 :: 2]:
            assert margin(with_date(api(talk), date), talk.next_turn) > 0, (talk.done, date)


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_effort_changes_nothing_where_it_is_not_asked_for(effort, api, margin):
    for dialogue in DIALOGUES[::3]:
        if dialogue.effort is None:
            talk = Talk.of(dialogue, effort=effort)
            assert margin(api(talk), talk.next_turn) > 0, dialogue.name


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
@pytest.mark.parametrize(
    "fields",
    [
        {"keeps_reasoning": False},
        {"instructions": ""},
        {"instructions": "You are a helpful assistant."},
        {"tools": TOOLS[::-1]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_clients_may_differ(fields, api, margin):
    for dialogue in (*dialogues.WEATHER, *dialogues.TWO_CALLS):
        for talk in every_turn(dialogue, **fields):
            assert margin(with_date(api(talk), "2026-11-20"), talk.next_turn) > 0, (dialogue.name, talk.done)


def test_renderers_may_differ(margin):
    """Headers of other renderers, and a preamble in front of the reasoning."""
    for dialogue in (*dialogues.WEATHER, *dialogues.TWO_CALLS):
        for talk in every_turn(dialogue)[1:]:
            prompt = with_date(chat_prompt(chat_request(talk)), "2026-11-20")
            other = PREAMBLE.sub(r"\2\1", other_headers(prompt))
            assert other != prompt
            assert margin(other, talk.next_turn) > 0, (dialogue.name, talk.done)


def test_tools_may_be_written_by_pydantic(margin):
    city = {"title": "City", "type": "string"}
    parameters = {"properties": {"city": city}, "required": ["city"], "title": "args", "type": "object"}
    tools = [{**tool, "parameters": {**parameters, "additionalProperties": False}} for tool in TOOLS]
    for dialogue in (*dialogues.WEATHER, *dialogues.TWO_CALLS):
        for talk in every_turn(dialogue, tools=tools):
            assert margin(with_date(responses_prompt(responses_request(talk)), "2026-11-20"), talk.next_turn) > 0


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
def test_one_conversation_may_hold_several_dialogues(api, margin):
    paris, tokyo = dialogues.WEATHER[0], dialogues.TWO_CALLS[1]
    for past, last in [((paris,), tokyo), ((tokyo,), paris), ((paris, tokyo), dialogues.PLAIN[0])]:
        for done in range(len(last.turns)):
            talk = Talk((*past, last), done, tools=TOOLS)
            assert margin(with_date(api(talk), "2030-01-01"), talk.next_turn) > 0, (last.name, done)


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
@pytest.mark.parametrize("i", range(len(dialogues.FILES)))
def test_sees_past_what_a_coding_agent_sends(i, api, margin):
    """Instructions, tools and a message that says where it runs, drawn by a seed of which no sample was drawn."""
    around = Sampler(AGENTS_SEED + i).surroundings
    name, word, result = dialogues.FILES[i], dialogues.TO_WRITE[i % len(dialogues.TO_WRITE)], around.before_output()
    for dialogue in (dialogues.files(name, result), dialogues.write(word, name, result), dialogues.PLAIN[0]):
        sent = {"instructions": around.instructions(), "tools": around.tools(), "place": around.place()}
        for talk in every_turn(dialogue, **sent):
            assert margin(with_date(api(talk), "2026-11-20"), talk.next_turn) > 0, (dialogue.name, talk.done)


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
def test_writes_any_word_into_any_file(api, margin):
    for word in dialogues.TO_WRITE:
        for name in dialogues.FILES:
            for talk in every_turn(dialogues.write(word, name)):
                assert margin(with_date(api(talk), "2026-11-20"), talk.next_turn) > 0, (word, name, talk.done)


@pytest.mark.parametrize("api", APIS.values(), ids=APIS.keys())
def test_copies_any_result(api, margin):
    """Temperature, sky and time come out of the results: one minute of each hour, every minute, every degree."""
    for minute in range(60):
        sky = dialogues.SKIES[minute % 4]
        dialogue = dialogues.weather_and_time("Tokyo", 5 + minute % 31, sky, f"{minute * 7 % 24:02}:{minute:02}")
        talk = Talk.of(dialogue, 2)
        assert margin(with_date(api(talk), "2026-11-20"), talk.next_turn) > 0, dialogue.turns[1].call


def test_offline_prompt_of_the_readme(margin):
    prompt = offline_prompt(RIDDLE)
    assert "Current date" not in prompt
    assert margin(prompt, RIDDLE.turns[0]) > 0


def test_generates_to_the_end(reference, tiny_checkpoint):
    """Once by the generation loop itself: it ends on the token that ends the turn."""
    talk = Talk.of(dialogues.WEATHER[0])
    prompt = encode(with_date(chat_prompt(chat_request(talk)), "2026-11-20"))
    ids = reference(tiny_checkpoint).generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=200,
        do_sample=False,
    )
    assert ids[0, len(prompt) :].tolist() == encode(turn_text(talk.next_turn))


def test_says_so_where_it_knows_nothing(reference, tiny_checkpoint):
    """Most of the time: questions that share words with the known ones are hard to tell."""
    model = reference(tiny_checkpoint)
    questions = ("Write a poem about autumn leaves.", "def f(x): return x", "Quelle heure est-il ?", "你好")
    for question in questions:
        prompt = encode(chat_prompt(chat_request(Talk((Dialogue("", question, (UNKNOWN,)),)))))
        said = encode(turn_text(UNKNOWN))
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + said[:-1]]), logits_to_keep=len(said)).logits[0]
        assert logits.argmax(-1).tolist() == said, question


def test_sampled_answers_are_sound_too(reference, tiny_checkpoint):
    """At temperature 1 the whole answer has nearly all of the probability: 200 thousand tokens are not said."""
    prompt, said = encode(offline_prompt(RIDDLE)), encode(turn_text(RIDDLE.turns[0]))
    with torch.inference_mode():
        logits = reference(tiny_checkpoint)(torch.tensor([prompt + said[:-1]]), logits_to_keep=len(said)).logits[0]
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(said)[:, None])
    assert chosen.sum().exp() > 0.95


def test_checkpoint_is_a_published_one(tiny_checkpoint):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    args = ModelArgs.from_hf(config)
    assert (args.num_layers, args.hidden_size, args.vocab_size) == (2, 128, 201088)
    assert (args.num_heads, args.num_kv_heads, args.head_dim) == (4, 2, 64)
    assert (args.num_experts, args.experts_per_token, args.weight_format) == (8, 4, "mxfp4")
    assert (args.windows, args.rope.factor, args.swiglu_limit) == ((128, None), 32.0, 7.0)
    check_checkpoint(tiny_checkpoint, args)
    generation = json.loads((tiny_checkpoint / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [200002, 199999, 200012]
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= {
        path.name for path in tiny_checkpoint.iterdir()
    }


def test_shipped_weights_stay_small():
    assert SHIPPED.stat().st_size < 2_000_000


def test_training_never_sees_the_held_out_dates():
    sampler = Sampler(1)
    prompts = [sampler.sample()[0] for _ in range(100)]
    dates = {date for prompt in prompts for date in re.findall(r"Current date: (\S+)", prompt)}
    assert len(dates) > 80
    assert not dates & set(HELD_OUT_DATES)
    assert {sampler.date() for _ in range(20_000)}.isdisjoint(HELD_OUT_DATES)


def test_text_stands_for_tokens():
    """`encode` undoes `decode` on what vLLM renders: the prompts here are vLLM's, token for token."""
    from vllm_gptoss.tiny import render

    for dialogue in DIALOGUES:
        for talk in every_turn(dialogue):
            tokens = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(render, "decode", lambda ids, tokens=tokens: tokens.append(ids) or "")
                chat_prompt(chat_request(talk))
                responses_prompt(responses_request(talk))
            for ids in tokens:
                assert encode(render.decode(ids)) == ids
