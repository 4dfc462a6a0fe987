"""Writes JSON schemas down as types, one after the other; `schema.py` says what the text looks like and why."""

import re
from collections.abc import Collection, Generator, Iterator
from itertools import chain
from typing import Any

from vllm_gptoss.rendering.keywords import (
    DETAILS,
    UNIONS,
    WORDS,
    all_notes,
    has_details,
    has_literals,
    implied_types,
    is_constraint,
    is_null,
    is_object,
    literals,
    tuple_of,
    types_here,
)
from vllm_gptoss.rendering.references import MAX_PARTS, Schema, SchemaError, Survey
from vllm_gptoss.rendering.typescript import (
    ANY,
    ARRAY,
    NEVER,
    Note,
    Type,
    Variant,
    check_length,
    comment,
    distinct,
    example_lines,
    in_line,
    intersection,
    name_of,
    notes_below,
    operand,
    quoted,
    remarks,
    rows,
    title_line,
    trailing,
    unsaid,
    with_null,
)

SHORT = 120
"""Characters of a definition that stands wherever it is used, with its comments."""
RESERVED = frozenset({"any", "never", "null", "string", "number", "boolean", "object", "array", "Array", "undefined"})

Step = Generator["Step", Any, Any]
"""A part of the work. It yields the steps below it and is sent their results: depth costs no stack of Python's."""


class Writer:
    """Writes the types of one schema. `indent` is where the members of an object stand, `lists` where variants do."""

    def __init__(self, found: Survey, taken: Collection[str]) -> None:
        self.types: dict[str, str] = {}
        self._found = found
        self._taken = {*taken, *RESERVED}
        self._names: dict[int, str] = {}
        """Of shared schemas that have been begun."""
        self._done: dict[int, Type] = {}
        """Shared schemas."""
        self._recurring: set[int] = set()
        self._count = 0

    def type_of(self, schema: Schema, indent: str, lists: str) -> Step:
        is_shared = id(schema) in self._found.shared
        return (yield self._shared(schema) if is_shared else self._written_out(schema, indent, lists))

    def _shared(self, schema: dict) -> Step:
        """A schema that is used more than once: its name, or its text where that is short."""
        key = id(schema)
        if key in self._done:
            return self._done[key]
        if key in self._names:
            self._recurring.add(key)
            return Type((self._names[key],))
        name = self._names[key] = self._new_name(schema)
        type_ = yield self._written_out(schema, "", "")
        text = in_line(type_._replace(head=""), "")
        size = len(text) + len(remarks(type_.notes, type_.description))
        if key in self._recurring or not type_.is_one_line or size > SHORT:
            lead = comment(type_.description)
            head = "" if type_.head == lead else type_.head
            space = "" if text.startswith("\n") else " "
            self.types[name] = f"{lead}type {name} ={space}{head}{text};{trailing(remarks(type_.notes))}\n"
            type_ = Type((name,))
        self._done[key] = type_
        return type_

    def _new_name(self, schema: dict) -> str:
        place = self._found.shared[id(schema)]
        is_defined = place.above is not None and place.above.token in ("$defs", "definitions")
        words = place.token if is_defined else schema.get("title") or place.token or "Arguments"
        stem = re.sub(r"\W", "_", f"_{words}" if words[:1].isdecimal() else words)[:60] or "_"
        stem = stem[0].upper() + stem[1:]
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name

    def _written_out(self, schema: Schema, indent: str, lists: str) -> Step:
        if isinstance(schema, bool):
            return ANY if schema else NEVER
        check_length(len(indent) ** 2 // 8)  # About the indentation of what it stands in.
        self._count += 1
        if self._count > 2 * MAX_PARTS:  # A dictionary that stands in many places counts in each of them.
            raise SchemaError(f"#: the schema consists of more than {MAX_PARTS} schemas")
        branches, members = [], []
        for part in self._parts(schema):
            if part is False:
                members.append(NEVER)
            elif id(part) in self._found.shared and part is not schema:
                members.append((yield self._shared(part)))
            else:
                branches.append(part)
        members += yield self._members(branches, bool(members), indent, lists)
        type_ = intersection(members, indent)
        if type_ == ANY:
            type_ = Type(distinct(name for branch in branches for name in implied_types(branch)) or ANY.options)
        branches.sort(key=lambda branch: branch is not schema)
        said = [*(branch.get("description") for branch in branches), *(member.description for member in members)]
        type_ = type_._replace(
            description=schema.get("description") or unsaid(type_, said, indent),
            notes=all_notes(type_, branches, members, self._found),
        )
        if any(branch.get("nullable") is True for branch in branches):
            type_ = with_null(type_)
        check_length(sum(map(len, (*type_.options, *chain(*type_.variants, *type_.notes)))))
        return type_

    def _parts(self, schema: dict) -> Iterator[Schema]:
        """What holds of one and the same value: all that the schema refers to and has in `allOf`, and itself."""
        stack, seen = [(schema, False)], set()
        while stack:
            part, is_open = stack.pop()
            if is_open or part is False:
                yield part
            elif part is not True and id(part) not in seen:
                seen.add(id(part))
                if id(part) in self._found.shared and part is not schema:
                    yield part
                    continue
                below = [] if part.get("$ref") is None else [self._found.targets[part["$ref"]]]
                below += part.get("allOf") or ()
                stack += [(part, True), *((other, False) for other in reversed(below))]

    def _members(self, branches: list[dict], has_others: bool, indent: str, lists: str) -> Step:
        """The types that the branches say; those of objects are merged into one."""
        objects = [branch for branch in branches if is_object(branch)]
        is_detailed = any(map(has_details, objects))
        says = [key for branch in branches for key in UNIONS if branch.get(key)]
        says += [branch for branch in branches if has_literals(branch) or types_here(branch)]
        if len(says) > 1 or has_others:
            lists = indent  # It stands beside something else, and not alone behind a name.
        members = []
        for branch in branches:
            if has_literals(branch):
                members.append(Type(literals(branch, self._found)))
            elif types_here(branch) and not is_object(branch):
                members.append((yield self._either(branch, indent)))
            for union in UNIONS:
                variants = branch.get(union)
                if variants and not (is_detailed and all(map(is_constraint, variants))):
                    types = branch.get("type") or next(filter(None, (other.get("type") for other in branches)), None)
                    members.append((yield self._union(union, variants, types, indent, lists)))
        if is_detailed or (objects and not members and not has_others):
            members.insert(0, (yield self._object(objects, indent)))
        return members

    def _either(self, schema: dict, indent: str) -> Step:
        """The types that `type` lists, or the one that it names; `object` or `array` in a list may be all it says."""
        options: list[str] = []
        notes: list[Note] = []
        head = ""
        for name in types_here(schema):
            is_word = name not in DETAILS or (isinstance(schema.get("type"), list) and not has_details(schema, (name,)))
            if is_word:
                type_ = Type((WORDS.get(name, name),))
            elif name == "object":
                type_ = yield self._object([schema], indent)
            else:
                type_ = yield self._array(schema, indent)
            if not options:
                head = type_.head
            options += type_.options if not options else [type_.head + type_.options[0]]
            notes += type_.notes
        return Type(distinct(options), notes=tuple(notes), head=head)

    def _array(self, schema: dict, indent: str) -> Step:
        first, rest = tuple_of(schema), schema.get("items")
        if isinstance(rest, list):
            rest = schema.get("additionalItems")
        if first is None:
            if rest is None:
                return ARRAY
            type_ = yield self.type_of(rest, indent, indent)
            return Type((f"{operand(type_, indent)}[]",), notes=notes_below("items", type_))
        elements: list[str] = []
        notes: tuple[Note, ...] = ()
        for number, element in enumerate(first):
            type_ = yield self.type_of(element, indent, indent)
            elements.append(in_line(type_, indent))
            notes += notes_below(f"[{number}]", type_)
        if rest is not None and rest is not False:
            type_ = yield self.type_of(rest, indent, indent)
            elements.append(f"...{operand(type_, indent)}[]")
            notes += notes_below("items", type_)
        return Type((f"[{', '.join(elements)}]",), notes=notes)

    def _object(self, branches: list[dict], indent: str) -> Step:
        properties: dict[str, list[Schema]] = {}
        for branch in branches:
            for name, schema in (branch.get("properties") or {}).items():
                properties.setdefault(name, []).append(schema)
        required = {name: None for branch in branches for name in branch.get("required") or ()}
        lines, length = [], 0
        for name, schemas in properties.items():
            label = name_of(name) if name in required else f"{name_of(name)}?"
            schema = schemas[0] if len(schemas) == 1 else {"allOf": schemas}
            lines.append((yield self._member(label, schema, indent, name)))
            length += len(lines[-1])
            check_length(length)
        for name in required:
            if name not in properties:
                lines.append((yield self._member(name_of(name), True, indent)))
        for branch in branches:
            lines += yield self._further_members(branch, indent)
        head = "".join(comment(text, indent) for text in distinct(branch.get("description") for branch in branches))
        return Type(("{\n" + "".join(distinct(lines)) + indent + "}",), head=head)

    def _further_members(self, schema: dict, indent: str) -> Step:
        """Members whose names the schema doesn't say, as index signatures."""
        lines = []
        for pattern, values in (schema.get("patternProperties") or {}).items():
            notes = (Note("key.pattern", quoted(pattern)),)
            lines.append((yield self._member("[key: string]", values, indent, notes=notes)))
        names, values = schema.get("propertyNames"), schema.get("additionalProperties")
        if values is False or (values is None and names is None):
            return lines
        label, notes = "[key: string]", ()
        if names is not None:
            keys = yield self.type_of(names, indent, indent)
            notes = notes_below("key", keys)
            if keys.options not in (ANY.options, ("string",)):
                label = f"[key in {in_line(keys, indent)}]?"
        lines.append((yield self._member(label, True if values is None else values, indent, notes=notes)))
        return lines

    def _member(self, label: str, schema: Schema, indent: str, name: str = "", notes: tuple[Note, ...] = ()) -> Step:
        """A line of an object and the comments above it, in the order of the library."""
        type_ = yield self.type_of(schema, f"{indent}    ", indent)
        says = schema if isinstance(schema, dict) else {}
        above = title_line(says.get("title"), name, indent)
        examples = example_lines(type_.notes, indent)
        behind = remarks((*notes, *(note for note in type_.notes if note.key != "example")))
        described = comment(type_.description, indent)
        if type_.variants:
            above += examples + described + comment(behind, indent)
            return f"{above}{indent}{label}:\n" + "".join(f"{row}\n" for row in rows(type_, indent)) + f"{indent},\n"
        if not says.get("description"):
            type_ = type_._replace(head="")
        above += described + examples
        return f"{above}{indent}{label}: {in_line(type_, indent)},{trailing(behind)}\n"

    def _union(
        self, keyword: str, variants: list[Schema], types: str | list[str] | None, indent: str, lists: str
    ) -> Step:
        """`types` are those of the schema that the union stands in: they hold for variants that name none."""
        if types is not None:
            variants = [{**schema, "type": types} if is_constraint(schema) else schema for schema in variants]
        others = [schema for schema in variants if not is_null(schema)]
        if len(others) == 1 and (len(variants) > 1 or keyword == "anyOf"):
            type_ = yield self.type_of(others[0], indent, lists)
            return with_null(type_) if len(variants) > 1 else type_
        deeper = f"{lists}   "
        members = []
        for schema in variants:
            members.append((yield self.type_of(schema, deeper, deeper)))
        fits = all(type_.is_one_line and not type_.variants and not type_.description for type_ in members)
        if keyword == "anyOf" and fits and sum(bool(type_.notes) for type_ in members) <= 1:
            notes = tuple(note for type_ in members for note in type_.notes)
            return Type(distinct(option for type_ in members for option in type_.options), notes=notes)
        listed: list[Variant] = []
        for schema, type_ in zip(variants, members, strict=True):
            if type_.variants and not type_.notes and not type_.description:
                listed += type_.variants
                continue
            is_said = type_.head and not (isinstance(schema, dict) and schema.get("description"))
            said = remarks(type_.notes, None if is_said else type_.description)
            listed.append(Variant(in_line(type_, deeper), said))
        return Type(variants=distinct(listed))
