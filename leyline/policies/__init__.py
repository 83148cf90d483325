"""Policies: what to edit, as a pure function of the history.

The built-ins and combinators are classes under the names they have in specs: `truncate_older_than(n=2)` here is
`"truncate_older_than(n=2)"` on the command line. Rules of your own start from `@rule`.
"""

from leyline.policies.base import BasePolicy, ChangePolicy, Policy
from leyline.policies.builtin.append_erratum import AppendErratum as append_erratum  # noqa: N813
from leyline.policies.builtin.clear_over import ClearOver as clear_over  # noqa: N813
from leyline.policies.builtin.dedupe import Dedupe as dedupe  # noqa: N813
from leyline.policies.builtin.drop_failed import DropFailed as drop_failed  # noqa: N813
from leyline.policies.builtin.drop_stale import DropStale as drop_stale  # noqa: N813
from leyline.policies.builtin.keep_all import KeepAll as keep_all  # noqa: N813
from leyline.policies.builtin.keep_last import KeepLast as keep_last  # noqa: N813
from leyline.policies.builtin.redact import Redact as redact  # noqa: N813
from leyline.policies.builtin.truncate_older_than import TruncateOlderThan as truncate_older_than  # noqa: N813
from leyline.policies.check import policy_edits
from leyline.policies.combinators.at_arrival import AtArrival as at_arrival  # noqa: N813
from leyline.policies.combinators.cost_aware import CostAware as cost_aware  # noqa: N813
from leyline.policies.combinators.freeze import Freeze as freeze  # noqa: N813
from leyline.policies.combinators.protect import Protect as protect  # noqa: N813
from leyline.policies.combinators.then import Then as then  # noqa: N813
from leyline.policies.combinators.when import When as when  # noqa: N813
from leyline.policies.combinators.with_mode import WithMode as with_mode  # noqa: N813
from leyline.policies.errors import PolicyError
from leyline.policies.loading import load_policy
from leyline.policies.reading.calls import Call, calls, is_observation, observations
from leyline.policies.reading.text import truncate
from leyline.policies.reading.tools import TOOLS
from leyline.policies.registry import PolicyInfo, list_policies
from leyline.policies.rule import DROP, RuleContext, RulePolicy, rule

__all__ = [
    "DROP",
    "TOOLS",
    "BasePolicy",
    "Call",
    "ChangePolicy",
    "Policy",
    "PolicyError",
    "PolicyInfo",
    "RuleContext",
    "RulePolicy",
    "append_erratum",
    "at_arrival",
    "calls",
    "clear_over",
    "cost_aware",
    "dedupe",
    "drop_failed",
    "drop_stale",
    "freeze",
    "is_observation",
    "keep_all",
    "keep_last",
    "list_policies",
    "load_policy",
    "observations",
    "policy_edits",
    "protect",
    "redact",
    "rule",
    "then",
    "truncate",
    "truncate_older_than",
    "when",
    "with_mode",
]
