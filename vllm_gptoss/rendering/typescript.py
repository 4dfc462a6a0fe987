"""Pieces of TypeScript-like text: types with their comments, in the layout of the harmony library.

    one line    name?: "a" | "b", // default: a
    an object   {                       its members are four columns deeper than the name that they belong to,
                    name: string,       and so is its end
                    }
    a list      name?:                  for variants that need lines or comments of their own
                 | string // a word
                 | number // a count
                ,

Source: OpenAI's guide to the harmony response format and the output of the harmony library; line ends are those of
ECMA-262, section 12.3.
"""

import json
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from vllm_gptoss.rendering.references import SchemaError

MAX_TEXT = 1_000_000
"""Characters of a type: what the 131,072 tokens of a prompt can hold, twice over."""
LINE_END = re.compile("\r\n|[\n\r\u2028\u2029]")
SMALL_NUMBER = re.compile(r'"(?:\\.|[^"\\])*"|-?\d(?:\.\d+)?e-0\d')
"""Texts, which stay, and numbers that the library spells in another way than Python."""
WORD = re.compile(r"[\w./:+-]+")


class Note(NamedTuple):
    """What a comment behind a type says of it."""

    key: str
    value: str


class Variant(NamedTuple):
    text: str
    comment: str = ""


class Type(NamedTuple):
    """A type on its way into the text."""

    options: tuple[str, ...] = ()
    """The alternatives, where they stand side by side."""
    variants: tuple[Variant, ...] = ()
    """The alternatives, where each stands on a line of its own."""
    notes: tuple[Note, ...] = ()
    description: str | None = None
    head: str = ""
    """Lines of comment that stand in front of an object, where nothing says the same above it."""
    is_intersection: bool = False

    @property
    def is_one_line(self) -> bool:
        if self.variants:
            return not any(variant.comment or "\n" in variant.text for variant in self.variants)
        return not self.head and not any("\n" in option for option in self.options)

    @property
    def is_of_texts(self) -> bool:
        """Nothing but literal texts, or null."""
        return any(option != NULL for option in self.options) and all(
            option == NULL or option.startswith('"') for option in self.options
        )


ANY, NEVER, ARRAY = Type(("any",)), Type(("never",)), Type(("Array<any>",))
NULL = "null"


def in_line(type_: Type, indent: str) -> str:
    """The type as it stands within other text."""
    if not type_.variants:
        return type_.head + " | ".join(type_.options)
    if type_.is_one_line:
        return " | ".join(variant.text for variant in type_.variants)
    end = f"\n{indent}" if type_.variants[-1].comment else ""
    return "".join(f"\n{row}" for row in rows(type_, indent)) + end


def rows(type_: Type, indent: str) -> list[str]:
    """The variants of a type as lines, without their ends."""
    return [f"{indent} | {variant.text}{trailing(variant.comment)}" for variant in type_.variants]


def operand(type_: Type, indent: str) -> str:
    """The type as it stands under `[]` and beside `&`."""
    text = in_line(type_, indent)
    is_several = len(type_.options) > 1 or bool(type_.variants)
    return f"({text})" if is_several or type_.is_intersection else text


def with_null(type_: Type) -> Type:
    if type_.variants:
        return type_._replace(variants=distinct((*type_.variants, Variant(NULL))))
    return type_._replace(options=distinct((*type_.options, NULL)))


def remarks(notes: Iterable[Note], description: str | None = None) -> str:
    """What stands in a comment behind a type."""
    said = " ".join(lines(description)) if description else ""
    return " ".join(filter(None, (said, ", ".join(f"{note.key}: {note.value}" for note in notes))))


def trailing(text: str) -> str:
    return f" // {text}" if text else ""


def comment(text: str | None, indent: str = "") -> str:
    """Lines of comment, each with its end."""
    said = lines(text) if text else []
    check_length(len(said) * len(indent))
    return "".join(f"{indent}// {line}\n" for line in said)


def check_length(length: int) -> None:
    """Raises: SchemaError for more than a prompt can hold."""
    if length > MAX_TEXT:
        raise SchemaError(f"#: the type is longer than {MAX_TEXT} characters")


def example_lines(notes: Iterable[Note], indent: str) -> str:
    examples = "".join(f"{indent}// - {note.value}\n" for note in notes if note.key == "example")
    return f"{indent}// Examples:\n{examples}" if examples else ""


def lines(text: str) -> list[str]:
    found = LINE_END.split(text)
    return found[:-1] if not found[-1] else found


def quoted(value: Any) -> str:
    """JSON on one line.

    Raises: ValueError for what is none, or is nested too deep.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no JSON: {error}") from None
    return SMALL_NUMBER.sub(_respelt, text).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _respelt(token: re.Match) -> str:
    if token[0].startswith('"'):
        return token[0]
    return f"{Decimal(token[0]):f}" if token[0].endswith("e-05") else token[0].replace("e-0", "e-")


def name_of(name: str) -> str:
    """The name of a member, quoted where it is no identifier."""
    return name if name.replace("$", "_").isidentifier() else quoted(name)


def distinct(values: Iterable) -> tuple:
    return tuple(dict.fromkeys(values))


def intersection(members: Iterable[Type], indent: str) -> Type:
    """What is all of the members; one that says no more than another is left out."""
    kept = {(member.options, member.variants): member for member in members if member.options != ANY.options}
    for key, member in list(kept.items()):
        if any(_is_narrower(other, member) for other in kept.values() if other is not member):
            del kept[key]
    if len(kept) < 2:
        return next(iter(kept.values()), ANY)
    return Type((" & ".join(operand(member, indent) for member in kept.values()),), is_intersection=True)


def _is_narrower(type_: Type, than: Type) -> bool:
    if than.options == ARRAY.options:
        return True
    words = {*than.options, *('"' for option in than.options if option == "string")}
    return bool(type_.options) and all(option in words or option[:1] in words for option in type_.options)


def notes_below(path: str, type_: Type) -> tuple[Note, ...]:
    """The notes of a part, for the comment of the whole."""
    notes = tuple(Note(f"{path}.{note.key}", note.value) for note in type_.notes)
    is_said = type_.head or not type_.description
    return notes if is_said else (Note(path, remarks((), type_.description)), *notes)


def title_line(title: str | None, name: str, indent: str) -> str:
    """The title of a member, unless it is the one that pydantic makes of the name."""
    if not title or title == name.title().replace("_", " ").strip():
        return ""
    return f"{comment(title, indent)}{indent}//\n"


def unsaid(type_: Type, descriptions: Iterable[str | None], indent: str) -> str | None:
    """The descriptions that do not stand in the type itself."""
    text = type_.options[0] if type_.is_intersection else ""
    return "\n".join(each for each in distinct(descriptions) if each and comment(each, indent) not in text) or None
