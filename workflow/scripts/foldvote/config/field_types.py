"""What the annotated types of the configuration's fields say, for the texts of errors."""

from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def plain_type(kind: Any) -> Any:
    """The type without `Annotated` and without `| None`."""
    if get_origin(kind) is Annotated:
        return plain_type(get_args(kind)[0])
    others = [member for member in get_args(kind) if member is not type(None)] if is_union(kind) else []
    return plain_type(others[0]) if len(others) == 1 else kind


def is_union(kind: Any) -> bool:
    """Whether a type is a union."""
    return get_origin(kind) in (Union, UnionType)


def is_section(kind: Any) -> bool:
    """Whether a type is a model of pydantic."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def tagged_members(union: Any) -> dict[str, type[BaseModel]]:
    """The members of a tagged union, by tag; none of any other type."""
    return {
        tag: member
        for member in (get_args(union) if is_union(union) else ())
        if is_section(member)
        for field in member.model_fields.values()
        if get_origin(field.annotation) is Literal and field.default is PydanticUndefined
        for tag in get_args(field.annotation)
    }


def accepts(field: FieldInfo, value: Any) -> bool:
    """Whether a field would take a value."""
    kind: Any = Annotated[field.annotation, *field.metadata, FieldInfo()]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True
