"""A value that satisfies a JSON schema, or a text that matches a regular expression: the simplest there is."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .refusal import Refusal

__all__ = ["Hints", "fill", "matching"]

_DEPTH = 6
_MOST = 1_000  # characters or items, whatever the least is that a schema or a pattern asks for
_CANDIDATES = string.ascii_letters + string.digits + " " + string.punctuation + "中\n\t"
_FORMATS = {
    "date": "2025-12-11",
    "date-time": "2025-12-11T08:00:00Z",
    "time": "08:00:00Z",
    "duration": "PT5S",
    "email": "user@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


@dataclass(frozen=True, slots=True)
class Hints:
    """What the question says that may go into a value: its numbers in order, what it puts in quotes, all its words."""

    numbers: list[float] = field(default_factory=list)
    quoted: list[str] = field(default_factory=list)
    text: str = ""

    @classmethod
    def of(cls, text: str) -> Hints:
        """Read the hints from a question."""
        numbers = [float(it) for it in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?", text)]
        quoted = [next(filter(None, it)) for it in re.findall(r'"([^"]+)"|“([^”]+)”|「([^」]+)」|\'([^\']+)\'', text)]
        return cls(numbers, quoted, text)


def fill(schema: Any, hints: Hints) -> Any:
    """Build a value for ``schema``: the hints where they fit, else the first or smallest value that is allowed."""
    return _Filler(schema, hints).value(schema, "value", 0)


class _Filler:
    def __init__(self, root: Any, hints: Hints) -> None:
        self._root = root
        self._hints = hints
        self._numbers = list(hints.numbers)
        self._quoted = list(hints.quoted)

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > 4 * _DEPTH:
            return None if schema is False or depth > 4 * _DEPTH else {}
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._chosen(schema["enum"])
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.value(self._branch(schema[key], depth), name, depth + 1)
        return self._typed(schema, name, depth)

    def _typed(self, schema: dict[str, Any], name: str, depth: int) -> Any:
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer" | "number" as kind:
                return self._number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return self._string(schema, name)

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        for _ in range(_DEPTH):
            if isinstance(reference := schema.get("$ref"), str):
                schema = {**_look_up(self._root, reference), **{k: v for k, v in schema.items() if k != "$ref"}}
        merged = dict(schema)
        for part in map(self._resolved, merged.pop("allOf", [])):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", []), *part.get("required", [])]
            merged = {**merged, **part, "properties": properties, "required": required}
        return merged

    def _branch(self, branches: list[Any], depth: int) -> Any:
        """Take the first branch that is not null; deep inside the first that is flat, so that recursion ends."""
        resolved = [self._resolved(it) if isinstance(it, dict) else it for it in branches]
        if depth > _DEPTH:
            flat = [it for it in resolved if isinstance(it, dict) and _type_of(it) not in ("object", "array")]
            return flat[0] if flat else resolved[0]
        return next((it for it in resolved if isinstance(it, dict) and _type_of(it) != "null"), resolved[0])

    def _chosen(self, values: list[Any]) -> Any:
        return next((it for it in values if isinstance(it, str) and it.lower() in self._hints.text.lower()), values[0])

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties") or {}
        wanted = list(properties) if depth <= _DEPTH else []
        wanted += [name for name in schema.get("required", []) if name not in wanted]
        if depth == 0:  # as many of the last numbers of the question as there are numbers to give
            kinds = [_type_of(self._resolved(it)) for it in properties.values() if isinstance(it, dict)]
            count = sum(kind in ("integer", "number") for kind in kinds)
            self._numbers = self._numbers[-count:] if count else []
        return {name: self.value(properties.get(name, {"type": "string"}), name, depth + 1) for name in wanted}

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        items = list(schema.get("prefixItems", []))
        least = max(schema.get("minItems", 0), 1 if depth <= _DEPTH else 0)
        count = min(max(least, len(items)), schema.get("maxItems", _MOST), _MOST)
        items += [schema.get("items", {"type": "string"})] * count
        values = [self.value(item, name, depth + 1) for item in items[:count]]
        if schema.get("uniqueItems"):
            values = [value if value not in values[:at] else _another(value, at) for at, value in enumerate(values)]
        return values

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        number: float = self._numbers.pop(0) if self._numbers else (self._hints.numbers or [1.0])[-1]
        step = schema.get("multipleOf", 1 if whole else 0)
        unit = step or 1e-3
        number = max(number, schema.get("minimum", number), schema.get("exclusiveMinimum", number - unit) + unit)
        number = min(number, schema.get("maximum", number), schema.get("exclusiveMaximum", number + unit) - unit)
        if step:
            number = -(-number // step) * step if number != number // step * step else number
            number = number - step if number > schema.get("maximum", number) else number
        return int(number) if whole or number == int(number) else number

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if pattern := schema.get("pattern"):
            return matching(pattern, whole=False)
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._quoted.pop(0) if self._quoted else name
        return text.ljust(min(_MOST, schema.get("minLength", 0)), "x")[: schema.get("maxLength")]


def _type_of(schema: dict[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((it for it in kind if it != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "string"


def _look_up(root: Any, reference: str) -> dict[str, Any]:
    found = root
    for step in reference.removeprefix("#").strip("/").split("/") if reference != "#" else ():
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if not reference.startswith("#") or not isinstance(found, dict):
        raise Refusal(f"Failed to transform json schema into a grammar: cannot find {reference}")
    return found


def _another(value: Any, at: int) -> Any:
    return value + at if isinstance(value, int) else f"{value}{at}"


def matching(pattern: str, *, whole: bool = True) -> str:
    """Write a short text that matches ``pattern``: each repeat as few times as allowed, each choice its first."""
    try:
        compiled = re.compile(pattern)
        text = "".join(_Regex(pattern).choices())
    except (re.error, IndexError, ValueError, StopIteration, RuntimeError) as error:
        raise Refusal(f"Failed to transform regex into a grammar: {error}") from error
    if not (compiled.fullmatch(text) if whole else compiled.search(text)):
        raise Refusal("Failed to transform regex into a grammar: the scripted server knows only simple patterns")
    return text


class _Regex:
    """A reader of the simple patterns: literals, classes, groups, ``|``, and repeats."""

    _CLASSES: ClassVar[dict[str, str]] = {
        "d": "5",
        "w": "a",
        "s": " ",
        "n": "\n",
        "t": "\t",
        "D": "x",
        "W": "-",
        "S": "x",
    }

    def __init__(self, pattern: str) -> None:
        self._rest = list(pattern)

    def choices(self) -> Iterator[str]:
        """Take the first alternative, up to the end of the pattern or group; the others are read and dropped."""
        first = list(self._sequence())
        while self._take("|"):
            list(self._sequence())
        yield from first

    def _sequence(self) -> Iterator[str]:
        while self._rest and self._rest[0] not in "|)":
            atom = self._atom()
            yield atom * self._repeats(atom)

    def _atom(self) -> str:
        mark = self._rest.pop(0)
        if mark == "(":
            if self._take("?") and not self._take(":"):
                raise ValueError("only plain and (?:...) groups are known")
            inner = "".join(self.choices())
            self._rest.pop(0)
            return inner
        if mark == "[":
            return self._one_of_class()
        if mark == "\\":
            return self._escaped()
        return {".": "x", "^": "", "$": ""}.get(mark, mark)

    def _one_of_class(self) -> str:
        written = "["
        while not written.endswith("]") or written in ("[]", "[^]"):
            written += self._rest.pop(0)
            if written.endswith("\\"):
                written += self._rest.pop(0).replace("]", "x5d")  # the class ends at the first bare bracket
        return next(it for it in _CANDIDATES if re.fullmatch(written, it))

    def _escaped(self) -> str:
        mark = self._rest.pop(0)
        return "" if mark in "bAZ" else self._CLASSES.get(mark, mark)

    def _repeats(self, atom: str) -> int:
        if self._take("*") or self._take("?"):
            return self._lazily(0)
        if self._take("+"):
            return self._lazily(1)
        if self._rest[:1] == ["{"] and atom:
            count = "".join(self._rest[1 : self._rest.index("}")])
            del self._rest[: self._rest.index("}") + 1]
            return self._lazily(min(_MOST, int(count.split(",")[0] or 0)))
        return 1

    def _lazily(self, count: int) -> int:
        self._take("?")
        return count

    def _take(self, mark: str) -> bool:
        found = self._rest[:1] == [mark]
        if found:
            self._rest.pop(0)
        return found
