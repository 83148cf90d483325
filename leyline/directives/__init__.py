"""Directives: what to change in a prompt that a server already holds, as data. Pure Python, no dependencies."""

from leyline.directives.choice import Choice, Reusable, choose, reusable
from leyline.directives.costs import Costs, CostsError, Load
from leyline.directives.directive import Directive, Mode, Segment
from leyline.directives.errors import BackendError, DirectiveError, EditError, LeylineError, WireError
from leyline.directives.fallback import EXPLANATIONS, Explanation, Fallback, explain
from leyline.directives.find import find_script
from leyline.directives.jsontypes import Json, JsonMapping, JsonObject
from leyline.directives.messages import Message, MessageEdit, apply_edits, canonical, diff
from leyline.directives.placement import Link, Placed, Site, place
from leyline.directives.receipt import FoundEdit, Outcome, Receipt, Splice
from leyline.directives.rendered import Rendered, token_edits, token_script, undeclared_edits
from leyline.directives.script import EditScript
from leyline.directives.wire import PROTOCOL, WireRequest

__all__ = [
    "EXPLANATIONS",
    "PROTOCOL",
    "BackendError",
    "Choice",
    "Costs",
    "CostsError",
    "Directive",
    "DirectiveError",
    "EditError",
    "EditScript",
    "Explanation",
    "Fallback",
    "FoundEdit",
    "Json",
    "JsonMapping",
    "JsonObject",
    "LeylineError",
    "Link",
    "Load",
    "Message",
    "MessageEdit",
    "Mode",
    "Outcome",
    "Placed",
    "Receipt",
    "Rendered",
    "Reusable",
    "Segment",
    "Site",
    "Splice",
    "WireError",
    "WireRequest",
    "apply_edits",
    "canonical",
    "choose",
    "diff",
    "explain",
    "find_script",
    "place",
    "reusable",
    "token_edits",
    "token_script",
    "undeclared_edits",
]
