"""Loads a dashboard into the data models that Grafana publishes; prints what they do not know, or know to be otherwise."""

import enum
import json
import sys
import typing

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def compare(read, loaded, place):
    if isinstance(read, dict) and isinstance(loaded, dict):
        for key, value in read.items():
            if key in loaded:
                compare(value, loaded[key], f"{place}.{key}")
            else:
                print(f"{place}.{key}: unknown to Grafana")
    elif isinstance(read, list) and isinstance(loaded, list) and len(read) == len(loaded):
        for number, (one, other) in enumerate(zip(read, loaded)):
            compare(one, other, f"{place}[{number}]")
    elif read != loaded:
        print(f"{place}: {read!r} is loaded as {loaded!r}")


def is_model(value):
    return type(value).__module__.startswith("grafana_foundation_sdk") and not isinstance(value, enum.Enum)


def check(value, hint, place):
    """Prints where a value is not what its model declares."""
    origin, of = typing.get_origin(hint), typing.get_args(hint)
    if is_model(value):
        # Where a declaration has a base or anything, a panel's type has chosen one.
        for name, hint in typing.get_type_hints(type(value)).items():
            check(getattr(value, name), hint, f"{place}.{name}")
    elif not fits(value, hint):
        print(f"{place}: {value!r} is no {hint}")
    elif origin is typing.Union:
        check(value, next(one for one in of if fits(value, one)), place)
    elif origin is list:
        for number, one in enumerate(value):
            check(one, of[0], f"{place}[{number}]")
    elif origin is dict:
        for key, one in value.items():
            check(one, of[1], f"{place}.{key}")


def fits(value, hint):
    origin, of = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Union:
        return any(fits(value, one) for one in of)
    if origin is typing.Literal:
        return value in of
    if not isinstance(origin, type):
        return True
    if issubclass(origin, enum.Enum):
        return value in [one.value for one in origin]
    if origin is float:
        return isinstance(value, (int, float))
    return isinstance(value, origin)


register_default_plugins()
with open(sys.argv[1]) as file:
    text = json.load(file)
model = Dashboard.from_json(text)
check(model, Dashboard, "dashboard")
board = json.loads(JSONEncoder().encode(model))
compare(text, board, "dashboard")
print(len(board["panels"]), "panels", file=sys.stderr)
