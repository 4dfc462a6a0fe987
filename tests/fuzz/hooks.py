"""What schemathesis is told of the server: requests that it can answer soon, and errors that come in a stream."""

import json
import random
import re
from typing import Any

import schemathesis

MODEL = "tiny"
PLAIN = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
}
"""By route, a conversation in place of most that are made up: few of those are valid, and then nothing else counts."""
LENGTHS = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),
    "/v1/completions": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
}
LONGEST, MOST = 8, 3
FIELDS, IN_PART = 6, 0.85
ERROR_IN_STREAM = re.compile(rb'"code":\s*(5\d\d\b|"server_error")')


@schemathesis.hook
def before_call(context, case, kwargs: dict[str, Any]) -> None:
    """The model's name, and few tokens and answers; of most requests only a part, so that one field is seen at all."""
    body, route = case.body, case.operation.path
    if case.method.upper() != "POST" or route not in PLAIN or not isinstance(body, dict):
        return
    chance = random.Random(json.dumps(body, sort_keys=True, default=str))
    body = _part(body, PLAIN[route], chance) if chance.random() < IN_PART else dict(body)
    if isinstance(body.get("model", ""), str):
        body["model"] = MODEL
    for name in LENGTHS[route]:
        if body.get(name) is None or _is_above(body[name], LONGEST):
            body[name] = LONGEST
    for name in ("n", "min_tokens"):
        if _is_above(body.get(name), MOST):
            body[name] = MOST
    case.body = body


def _part(body: dict[str, Any], plain: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A few fields, or those that are not empty, which the server mostly refuses; mostly of a plain conversation."""
    few = sorted(body.keys() - plain.keys() - {"model"})
    few = chance.sample(few, min(FIELDS, len(few))) if chance.random() < 0.5 else [name for name in few if body[name]]
    conversation = plain if chance.random() < IN_PART else {name: body[name] for name in plain if name in body}
    return {"model": MODEL, **{name: body[name] for name in few}, **conversation}


def _is_above(value: Any, limit: int) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > limit


@schemathesis.check
def no_error_in_stream(context, response, case) -> None:
    """An answer of status 200 that streams must not end in an error of the server."""
    found = ERROR_IN_STREAM.search(response.content)
    assert response.status_code >= 400 or found is None, f"the stream has an error {found[1].decode()}"
