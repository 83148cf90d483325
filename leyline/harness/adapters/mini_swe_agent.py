"""mini-swe-agent: its model class with an edit policy. Needs `leyline-kv[mini-swe-agent]`.

In a configuration of mini-swe-agent:

    model:
      model_class: leyline.harness.adapters.mini_swe_agent.LeylineModel
      policy: "truncate_older_than(n=2, max_chars=200)"
"""

from __future__ import annotations

import threading

from minisweagent.models.litellm_model import LitellmModel, LitellmModelConfig
from minisweagent.models.litellm_textbased_model import LitellmTextbasedModel, LitellmTextbasedModelConfig

from leyline.directives import JsonObject
from leyline.harness.adapters.server import body_beside, splices
from leyline.harness.editor import Editor, EditPlan


class LeylineModelConfig(LitellmModelConfig):  # type: ignore[misc]
    """Its own settings, and those of an `Editor`."""

    policy: str = "keep_all"
    mode: str = "amortize"
    audit: bool = False


class LeylineTextbasedModelConfig(LitellmTextbasedModelConfig, LeylineModelConfig):  # type: ignore[misc]
    """The same for models whose actions stand in their text."""


class _Edited:
    """What edits, in front of a model class: the history when it is prepared, the ledger when it was answered.

    The plan is made before marks for a cache are set, so that a mark that moves makes no other conversation of it.
    """

    config: LeylineModelConfig
    leyline: Editor

    def _open(self) -> None:
        config = self.config
        self.leyline = Editor(config.policy, mode=config.mode, audit=config.audit, splice=True, owner="mini-swe-agent")
        self._plans = threading.local()

    def _prepare_messages_for_api(self, messages: list[JsonObject]) -> list[JsonObject]:
        said = [{key: value for key, value in message.items() if key != "extra"} for message in messages]
        kwargs = self.config.model_kwargs
        splice = splices(kwargs.get("api_base") or kwargs.get("base_url"), kwargs.get("api_key"))
        plan = self.leyline.plan(said, dialect="chat", model=self.config.model_name, splice=splice)
        self._plans.now = plan
        prepared: list[JsonObject] = super()._prepare_messages_for_api(list(plan.messages))  # type: ignore[misc]
        return prepared

    def _query(self, messages: list[JsonObject], **settings: object) -> object:
        plan: EditPlan | None = getattr(self._plans, "now", None)
        if plan is not None:
            given: JsonObject = {**self.config.model_kwargs, **settings}
            own = given.get("extra_headers") or {}
            settings["extra_headers"] = {**own, **plan.headers_beside(own)}
            if plan.request_fields:
                settings["extra_body"] = body_beside(plan, given.get("extra_body"))
        response = super()._query(messages, **settings)  # type: ignore[misc]
        if plan is not None:
            plan.served(response)
        return response


class LeylineModel(_Edited, LitellmModel):  # type: ignore[misc]
    """`LitellmModel` with an edit policy; `model.leyline.report()` says what was done."""

    def __init__(self, *, config_class: type[LeylineModelConfig] = LeylineModelConfig, **settings: object) -> None:
        super().__init__(config_class=config_class, **settings)
        self._open()


class LeylineTextbasedModel(_Edited, LitellmTextbasedModel):  # type: ignore[misc]
    """`LitellmTextbasedModel` with an edit policy."""

    def __init__(self, **settings: object) -> None:
        # The class above fixes its configuration's class, so its own base is asked.
        LitellmModel.__init__(self, config_class=LeylineTextbasedModelConfig, **settings)
        self._open()
