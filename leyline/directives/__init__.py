"""Directives: what to change in a prompt that a server already holds, as data. Pure Python, no dependencies."""

from leyline.directives.directive import Directive, Mode, Segment
from leyline.directives.errors import DirectiveError, EditError, LeylineError, WireError
from leyline.directives.fallback import EXPLANATIONS, Explanation, Fallback, explain
from leyline.directives.messages import Message, MessageEdit, apply_edits, canonical, diff
from leyline.directives.receipt import Outcome, Receipt, Splice
from leyline.directives.rendered import Rendered, token_edits, token_script, undeclared_edits
from leyline.directives.script import EditScript
from leyline.directives.wire import PROTOCOL, WireRequest

__all__ = [
    "EXPLANATIONS",
    "PROTOCOL",
    "Directive",
    "DirectiveError",
    "EditError",
    "EditScript",
    "Explanation",
    "Fallback",
    "LeylineError",
    "Message",
    "MessageEdit",
    "Mode",
    "Outcome",
    "Receipt",
    "Rendered",
    "Segment",
    "Splice",
    "WireError",
    "WireRequest",
    "apply_edits",
    "canonical",
    "diff",
    "explain",
    "token_edits",
    "token_script",
    "undeclared_edits",
]
