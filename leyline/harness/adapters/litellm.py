"""litellm: an edit policy as a callback, of its SDK and of its proxy. Needs `leyline-kv[litellm]`.

litellm.callbacks = [LeylineLogger("truncate_older_than(n=2, max_chars=200)")]

It sees `acompletion`, `aresponses` and the proxy's requests. For `completion` there is no such hook: `plug_in(policy)`
edits whatever litellm sends with httpx.
"""

from __future__ import annotations

from collections import OrderedDict

import httpx
import litellm
from anyio import to_thread
from litellm.integrations.custom_logger import CustomLogger

from leyline.dialects import Dialect, DialectError
from leyline.directives import JsonObject, Mode
from leyline.harness.adapters.server import body_beside, splices
from leyline.harness.editor import Editor, EditPlan
from leyline.harness.exchange import changed, holds_history, session_of
from leyline.harness.transport import Transport, transport
from leyline.policies import Policy, keep_all

_DIALECTS: dict[str, Dialect] = {
    "completion": "chat",
    "acompletion": "chat",
    "responses": "responses",
    "aresponses": "responses",
    "anthropic_messages": "messages",
}
_OPEN = 4096  # requests that wait for their answer; more are some whose end litellm did not tell


class LeylineLogger(CustomLogger):  # type: ignore[misc]
    """Edits what litellm sends. `.leyline` is the `Editor`.

    An edit counts as made when the answer is there, and of a stream when it is asked for. The proxy edits before it
    chooses a deployment, so that the conversation is the same in front of all of them.
    """

    def __init__(
        self, policy: str | Policy = "keep_all", *, mode: Mode | str = Mode.AMORTIZE, audit: bool = False
    ) -> None:
        super().__init__()
        self.leyline = Editor(policy, mode=mode, audit=audit, splice=True, owner="litellm")
        self._plans: OrderedDict[str, EditPlan] = OrderedDict()

    async def async_pre_call_hook(
        self, user_api_key_dict: object, cache: object, data: JsonObject, call_type: str
    ) -> JsonObject | None:
        """Of the proxy: a caller's conversations are its own."""
        headers = (data.get("proxy_server_request") or {}).get("headers") or {}
        tenant = getattr(user_api_key_dict, "token", None) or ""
        return await self._planned(data, call_type, f"{tenant}/", session_of(headers))

    async def async_pre_call_deployment_hook(self, kwargs: JsonObject, call_type: object) -> JsonObject | None:
        """Of the SDK; a request of the proxy is planned by now."""
        if str(kwargs.get("litellm_call_id")) in self._plans:
            return None
        return await self._planned(kwargs, str(getattr(call_type, "value", call_type)), "", None)

    async def async_post_call_success_deployment_hook(
        self, request_data: JsonObject, response: object, call_type: object
    ) -> None:
        """The SDK's answer."""
        self._served(request_data, response)

    async def async_post_call_success_hook(
        self, data: JsonObject, user_api_key_dict: object, response: object
    ) -> object:
        """The proxy's answer."""
        self._served(data, response)
        return response

    async def async_log_success_event(
        self, kwargs: JsonObject, response_obj: object, start_time: object, end_time: object
    ) -> None:
        """A stream's usage, once it was read."""
        self._served(kwargs, response_obj)

    async def async_log_failure_event(
        self, kwargs: JsonObject, response_obj: object, start_time: object, end_time: object
    ) -> None:
        """A request that failed is not remembered."""
        self._plans.pop(str(kwargs.get("litellm_call_id")), None)

    async def _planned(self, body: JsonObject, call_type: str, tenant: str, session: str | None) -> JsonObject | None:
        dialect = _DIALECTS.get(call_type)
        if dialect is None or not holds_history(body, dialect):
            return None
        try:
            url = body.get("api_base") or body.get("base_url")
            splice = dialect == "chat" and await to_thread.run_sync(splices, url, body.get("api_key"))
            plan = await self.leyline.aplan(
                body,
                dialect=dialect,
                splice=splice,
                model=f"{tenant}{body.get('model')}",
                session=None if session is None else f"{tenant}{session}",
            )
        except DialectError:
            if isinstance(self.leyline.policy, keep_all):
                return None  # there is nothing to edit in any history
            raise
        self._plans[str(body.get("litellm_call_id"))] = plan
        while len(self._plans) > _OPEN:
            self._plans.popitem(last=False)
        if body.get("stream"):
            plan.served()
        sent = plan.body or {}
        made = {key: value for key, value in body.items() if key in sent}
        made |= {key: value for key, value in changed(body, sent).items() if key not in plan.request_fields}
        if plan.request_fields:
            made["extra_body"] = body_beside(plan, body.get("extra_body"), stream=bool(body.get("stream")))
        own = body.get("extra_headers") or {}
        return {**made, "extra_headers": {**own, **plan.headers_beside(own)}}

    def _served(self, data: JsonObject, response: object) -> None:
        plan = self._plans.pop(str(data.get("litellm_call_id")), None)
        if plan is not None:
            plan.served(response)


def plug_in(policy: str | Policy, *, mode: Mode | str = Mode.AMORTIZE, audit: bool = False) -> Transport:
    """Edit all that litellm sends with httpx from now on, synchronous calls too; gives the transport, whose `.leyline`
    is the `Editor`. Set `litellm.client_session` and `litellm.aclient_session` to None to end it.
    """
    made = transport(policy, mode=mode, audit=audit)
    litellm.client_session = httpx.Client(transport=made)
    litellm.aclient_session = httpx.AsyncClient(transport=made)
    return made
