"""JSON schemas as grammars: the parts of JSON Schema (2020-12) that a model can be held to.

Known are `type`, `properties`, `required`, `items`, `minItems`, `maxItems`, `minLength`,
`maxLength`, `enum`, `const`, `anyOf`, `$defs` and `$ref` to them. Objects get their properties in
the order of the schema and no others. Any other keyword is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.serving.json_grammar import (
    NOTHING,
    Alt,
    Automaton,
    Byte,
    Expression,
    Lazy,
    Seq,
    Star,
    literal,
    optional,
)

_NOTES = frozenset({"title", "description", "default", "examples", "$schema", "$id", "$comment"})
_KNOWN = _NOTES | {
    "type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems",
    "minLength", "maxLength", "enum", "const", "anyOf", "$defs", "definitions", "$ref",
}  # fmt: skip
_MOST_REPEATS = 1000
_MOST_DIGITS = 15


def compile_schema(schema: Mapping[str, Any] | None) -> Automaton:
    """The grammar of a schema; of any JSON object where it is None.

    Raises:
        RecipeError: The schema has keywords or values that are not known here.
    """
    if schema is None:
        return Automaton(_ANY_OBJECT)
    return Automaton(_Compiler(schema).expression(schema, "schema"))


# --- JSON itself -----------------------------------------------------------------------------


def _range(low: int, high: int, without: bytes = b"") -> Byte:
    return Byte(frozenset(range(low, high + 1)) - frozenset(without))


_DIGIT = _range(0x30, 0x39)
_HEX = Byte(frozenset(b"0123456789abcdefABCDEF"))
_REST = _range(0x80, 0xBF)
_CHARACTER = Alt(
    (
        _range(0x20, 0x7E, without=b'"\\'),
        Seq((literal(b"\\"), Byte(frozenset(b'"\\/bfnrt')))),
        # No escapes of surrogates: half a pair is no text.
        Seq((literal(b"\\u"), _range(0x30, 0x39), _HEX, _HEX, _HEX)),
        Seq((_range(0xC2, 0xDF), _REST)),
        Seq((literal(b"\xe0"), _range(0xA0, 0xBF), _REST)),
        Seq((Byte(frozenset({*range(0xE1, 0xED), 0xEE, 0xEF})), _REST, _REST)),
        Seq((literal(b"\xed"), _range(0x80, 0x9F), _REST)),
        Seq((literal(b"\xf0"), _range(0x90, 0xBF), _REST, _REST)),
        Seq((_range(0xF1, 0xF3), _REST, _REST, _REST)),
        Seq((literal(b"\xf4"), _range(0x80, 0x8F), _REST, _REST)),
    )
)


def _times(part: Expression, least: int, most: int | None) -> Expression:
    """`least` to `most` of it; any number where most is None."""
    tail: Expression = Star(part) if most is None else NOTHING
    for _ in range(0 if most is None else most - least):
        tail = optional(Seq((part, tail)))
    return Seq((*(part,) * least, tail))


_SPACE = optional(literal(b" "))
_COMMA, _COLON = Seq((literal(b","), _SPACE)), Seq((literal(b":"), _SPACE))
_STRING = Seq((literal(b'"'), Star(_CHARACTER), literal(b'"')))
_INTEGER = Seq(
    (
        optional(literal(b"-")),
        Alt((literal(b"0"), Seq((_range(0x31, 0x39), _times(_DIGIT, 0, _MOST_DIGITS - 1))))),
    )
)
_NUMBER = Seq(
    (
        _INTEGER,
        optional(Seq((literal(b"."), _times(_DIGIT, 1, _MOST_DIGITS)))),
        optional(
            Seq((Byte(frozenset(b"eE")), optional(Byte(frozenset(b"+-"))), _times(_DIGIT, 1, 2)))
        ),
    )
)
_BOOLEAN, _NULL = Alt((literal(b"true"), literal(b"false"))), literal(b"null")


def _listed(item: Expression, open_: bytes, close: bytes) -> Expression:
    some = Seq((item, Star(Seq((_COMMA, item)))))
    return Seq((literal(open_), optional(some), literal(close)))


_ANY = Lazy(lambda: _any_value())
_ANY_OBJECT = _listed(Seq((_STRING, _COLON, _ANY)), b"{", b"}")
_ANY_ARRAY = _listed(_ANY, b"[", b"]")
_ANY_VALUE: Expression = Alt((_STRING, _NUMBER, _BOOLEAN, _NULL, _ANY_OBJECT, _ANY_ARRAY))


def _any_value() -> Expression:
    return _ANY_VALUE


_PLAIN: Mapping[str, Expression] = {
    "number": _NUMBER, "integer": _INTEGER, "boolean": _BOOLEAN, "null": _NULL,
}  # fmt: skip


# --- schemas ---------------------------------------------------------------------------------


class _Compiler:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._named: dict[str, Expression] = {}

    def expression(self, schema: Any, where: str) -> Expression:
        if schema is True:
            return _ANY_VALUE
        if not isinstance(schema, Mapping):
            raise _wrong(where, "is not a schema")
        unknown = sorted(set(schema) - _KNOWN)
        if unknown:
            raise _wrong(where, f"has the keyword {unknown[0]!r}, which is not supported")
        if "$ref" in schema:
            return self._reference(schema["$ref"], where)
        if "const" in schema:
            return _constant(schema["const"])
        if "enum" in schema:
            if not isinstance(schema["enum"], list) or not schema["enum"]:
                raise _wrong(where, "has an enum that lists nothing")
            return Alt(tuple(_constant(value) for value in schema["enum"]))
        if "anyOf" in schema:
            if not isinstance(schema["anyOf"], list) or not schema["anyOf"]:
                raise _wrong(where, "has an anyOf that lists nothing")
            parts = enumerate(schema["anyOf"])
            return Alt(tuple(self.expression(part, f"{where}.anyOf[{i}]") for i, part in parts))
        kinds = schema.get("type", "object" if "properties" in schema else None)
        if kinds is None:
            return _ANY_VALUE
        listed = kinds if isinstance(kinds, list) else [kinds]
        return Alt(tuple(self._of_type(kind, schema, where) for kind in listed))

    def _of_type(self, kind: Any, schema: Mapping[str, Any], where: str) -> Expression:
        if kind == "object":
            return self._object(schema, where)
        if kind == "array":
            return self._array(schema, where)
        if kind == "string":
            least, most = _bounds(schema, "minLength", "maxLength", where)
            return Seq((literal(b'"'), _times(_CHARACTER, least, most), literal(b'"')))
        if not isinstance(kind, str) or kind not in _PLAIN:
            raise _wrong(where, f"has the type {kind!r}, which JSON has not")
        return _PLAIN[kind]

    def _reference(self, name: Any, where: str) -> Expression:
        if not isinstance(name, str) or not name.startswith(("#/$defs/", "#/definitions/")):
            raise _wrong(where, f"refers to {name!r}; only #/$defs/… is supported")
        if name not in self._named:
            _, table, key = name.split("/", 2)
            definitions = self._root.get(table)
            if not isinstance(definitions, Mapping) or key not in definitions:
                raise _wrong(where, f"refers to {name!r}, which is not there")
            made: list[Expression] = []
            self._named[name] = Lazy(partial(_first, made))
            made.append(self.expression(definitions[key], name))
        return self._named[name]

    def _object(self, schema: Mapping[str, Any], where: str) -> Expression:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise _wrong(where, "has properties or required of a wrong type")
        if not isinstance(schema.get("additionalProperties", True), bool):
            raise _wrong(where, "has additionalProperties that are a schema: not supported")
        if not properties and not required:
            closed = schema.get("additionalProperties") is False
            return literal(b"{}") if closed else _ANY_OBJECT
        names = [*properties, *(name for name in required if name not in properties)]
        pairs = [
            Seq((_constant(name), _COLON,
                 self.expression(properties.get(name, True), f"{where}.properties.{name}")))
            for name in names
        ]  # fmt: skip
        # From the last back: what may follow a property, as the first of the object or not.
        first: Expression = NOTHING
        later: Expression = NOTHING
        for name, pair in zip(reversed(names), reversed(pairs), strict=True):
            as_first, as_later = Seq((pair, later)), Seq((_COMMA, pair, later))
            if name in required:
                first, later = as_first, as_later
            else:
                first, later = Alt((as_first, first)), Alt((as_later, later))
        return Seq((literal(b"{"), first, literal(b"}")))

    def _array(self, schema: Mapping[str, Any], where: str) -> Expression:
        item = self.expression(schema.get("items", True), f"{where}.items")
        least, most = _bounds(schema, "minItems", "maxItems", where)
        if most == 0:
            return literal(b"[]")
        more = _times(Seq((_COMMA, item)), max(0, least - 1), None if most is None else most - 1)
        some: Expression = Seq((item, more))
        return Seq((literal(b"["), some if least else optional(some), literal(b"]")))


def _first(made: list[Expression]) -> Expression:
    return made[0]


def _constant(value: Any) -> Expression:
    try:
        return literal(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:  # infinities, and halves of surrogate pairs
        raise _wrong("schema", f"has the value {value!r}, which JSON cannot hold") from None


def _bounds(schema: Mapping[str, Any], low: str, high: str, where: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    for name, value in ((low, least), (high, most)):
        if value is not None and not (type(value) is int and 0 <= value <= _MOST_REPEATS):
            raise _wrong(where, f"has {name} = {value!r}, not a number from 0 to {_MOST_REPEATS}")
    if most is not None and most < least:
        raise _wrong(where, f"has {high} = {most} below {low} = {least}")
    return least, most


def _wrong(where: str, what: str) -> RecipeError:
    return RecipeError(f"{where} {what}", where="response_format")
