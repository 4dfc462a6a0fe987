"""The form that a request asks its answer to have: `response_format`, `text.format`, `structured_outputs`."""

import json
from typing import Any, NamedTuple

import xgrammar
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.exceptions import VLLMValidationError
from vllm.parser.abstract_parser import structured_outputs_to_format
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.structured_output.utils import compile_regex_with_timeout

from vllm_gptoss.grammar.schema import ANY_OBJECT, UnsupportedSchemaError, enforceable, said_of
from vllm_gptoss.grammar.turn import Format, json_of
from vllm_gptoss.parsers.serving import Request


class Asked(NamedTuple):
    """Where a form of answer was asked for."""

    field: str
    name: str | None = None
    strict: bool | None = None

    def refused(self, problem: str) -> VLLMValidationError:
        shown = "text.format" if self.field == "text" else self.field
        name = f" {self.name!r}" if self.name else ""
        return VLLMValidationError(f"{shown}{name}: {problem}", parameter=self.field)


def answer_format(request: Request, wanted: StructuredOutputsParams) -> Format | None:
    """The body of the final message, None where `wanted` says nothing that has a meaning.

    Raises: VLLMValidationError that names the format, and the path in its schema.
    """
    asked = _asked(request)
    if wanted.json_object:
        return json_of(ANY_OBJECT)
    if wanted.json is not None:
        return _json(wanted.json, asked)
    try:
        if wanted.regex is not None:
            compile_regex_with_timeout(xgrammar.Grammar.from_regex, wanted.regex)
        form = structured_outputs_to_format(wanted)
        if form is None:
            return None
        form = form.model_dump()
        xgrammar.Grammar.from_structural_tag(json.dumps({"type": "structural_tag", "format": form}))
    except Exception as error:  # xgrammar's classes are those of its C++ side
        raise asked.refused(said_of(error.__cause__ or error)) from None
    return form


def _json(schema: Any, asked: Asked) -> Format:
    try:
        schema = json.loads(schema) if isinstance(schema, str) else schema  # `structured_outputs.json` may be a text
        return json_of(enforceable(schema, asked.strict))
    except UnsupportedSchemaError as error:
        raise asked.refused(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise asked.refused(f"the schema is not JSON: {error}") from None


def _asked(request: Request) -> Asked:
    if isinstance(request, ResponsesRequest):
        field, form = "text", request.text and request.text.format
    else:
        field, form = "response_format", request.response_format
    if form is None or form.type == "text":
        return Asked("structured_outputs")
    named = getattr(form, "json_schema", None) or form  # chat has name and schema one level further in
    return Asked(field, getattr(named, "name", None), getattr(named, "strict", None))
