"""The old guide's LLM classes on today's langchain-openai: tracked by themselves, with PromptLayer's id on request."""

from __future__ import annotations

from typing import Any, Self

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from pydantic import BaseModel, model_validator

from . import _runtime, _waiting
from ._callback import PromptLayerCallbackHandler
from ._handler import Handler
from ._request import Request

try:
    from langchain_openai import ChatOpenAI, OpenAI
except ImportError as error:
    raise ImportError("pltrack.openai needs langchain-openai: pip install pltrack[openai]") from error

PL_REQUEST_ID = "pl_request_id"


class _Tracker(PromptLayerCallbackHandler):
    """The handler that a model carries; told apart from the user's own, so that a copied model has it once."""


class _Finder(Handler):
    """Finds the requests that one `generate` makes, by their run ids; a completion model's also by their prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Any, Request] = {}
        self.by_prompt: dict[str, Request] = {}

    def _join(self, live: Any) -> None:
        super()._join(live)
        self.found[live.call.run_id] = live.handle
        if live.call.kind == "llm":
            self.by_prompt.update(dict.fromkeys(live.call.inputs, live.handle))


class _PromptLayer(BaseModel):
    """What both classes add to their parents."""

    pl_tags: list[str] | None = None
    """Tags for PromptLayer; the provider never sees them."""

    return_pl_id: bool = False
    """Whether `generation_info["pl_request_id"]` is to tell the request's id. That waits for PromptLayer.

    It is PromptLayer's (a number), or our own (text) where that cannot come or does not within `id_timeout`;
    every verb takes either. Streams have none.
    """

    @model_validator(mode="after")
    def _carry_tracker(self) -> Self:
        # Among the model's own callbacks: streams do not pass through `generate`.
        model: Any = self
        mine = _Tracker(pl_tags=self.pl_tags)
        if isinstance(model.callbacks, BaseCallbackManager):
            model.callbacks = _added(model.callbacks, mine)
        else:
            model.callbacks = [*(each for each in model.callbacks or () if not isinstance(each, _Tracker)), mine]
        return self

    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Do what the parent does; with `return_pl_id` each generation tells its request's id."""
        parent: Any = super()
        if not self.return_pl_id:
            return parent.generate(*args, **kwargs)  # type: ignore[no-any-return]
        finder = _Finder()
        args, kwargs = _watched(finder, args, kwargs)
        result = parent.generate(*args, **kwargs)
        _waiting.wait(_awaited(finder), _runtime.get().settings.id_timeout)
        return _with_ids(result, finder, _inputs(args, kwargs))

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Do what `generate` does without blocking the event loop."""
        parent: Any = super()
        if not self.return_pl_id:
            return await parent.agenerate(*args, **kwargs)  # type: ignore[no-any-return]
        finder = _Finder()
        args, kwargs = _watched(finder, args, kwargs)
        result = await parent.agenerate(*args, **kwargs)
        await _waiting.await_ids(_awaited(finder), _runtime.get().settings.id_timeout)
        return _with_ids(result, finder, _inputs(args, kwargs))

    def _get_ls_params(self, *args: Any, **kwargs: Any) -> Any:
        # LangChain takes a completion model's provider from the name of its class.
        parent: Any = super()
        return {**parent._get_ls_params(*args, **kwargs), "ls_provider": "openai"}

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return where this class is, so that what `langchain_core.load` wrote can be read again."""
        return ["pltrack", "openai"]


class PromptLayerOpenAI(_PromptLayer, OpenAI):
    """`langchain_openai.OpenAI`, each call tracked. Takes its arguments, and `pl_tags` and `return_pl_id`."""


class PromptLayerChatOpenAI(_PromptLayer, ChatOpenAI):
    """`langchain_openai.ChatOpenAI`, each call tracked. Takes its arguments, and `pl_tags` and `return_pl_id`."""


# -- one call's callbacks -------------------------------------------------------------------------------------


def _watched(finder: _Finder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `generate(inputs, stop, callbacks, ...)` with the finder among the callbacks."""
    if len(args) > 2:
        return (*args[:2], _added(args[2], finder), *args[3:]), kwargs
    return args, {**kwargs, "callbacks": _added(kwargs.get("callbacks"), finder)}


def _added(callbacks: Any, handler: Handler) -> Any:
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        for old in [each for each in manager.handlers if isinstance(each, _Tracker)]:
            manager.remove_handler(old)
        manager.add_handler(handler, inherit=False)
        return manager
    given = list(callbacks or ())
    if given and (given[0] is None or isinstance(given[0], list | BaseCallbackManager)):
        return [_added(each, handler) for each in given]  # completion models: callbacks for each prompt
    return [*given, handler]


# -- ids ------------------------------------------------------------------------------------------------------


def _awaited(finder: _Finder) -> list[Request]:
    return [each for each in finder.found.values() if not each._dropped]


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    given: Any = args[0] if args else kwargs.get("prompts", kwargs.get("messages"))
    return list(given)


def _with_ids(result: LLMResult, finder: _Finder, inputs: list[Any]) -> LLMResult:
    """Return the result with each generation telling its request's id; None for a cached one without a request."""
    runs = [finder.found.get(each.run_id) for each in result.run or ()]
    if len(runs) != len(inputs):  # some prompts were answered by LangChain's cache, without a run
        runs = [finder.by_prompt.get(each) for each in inputs]
    # Copies: LangChain's cache keeps the generations it was given.
    generations = [
        [_with_id(each, request) for each in candidates]
        for candidates, request in zip(result.generations, runs, strict=True)
    ]
    return result.model_copy(update={"generations": generations})


def _with_id(generation: Any, request: Request | None) -> Generation:
    said: dict[str, Any] = {PL_REQUEST_ID: None if request is None else request.request_id or request.id}
    changes: dict[str, Any] = {"generation_info": {**(generation.generation_info or {}), **said}}
    if isinstance(generation, ChatGeneration):  # `invoke` gives its caller the message only
        message = generation.message
        metadata = {**message.response_metadata, **said}
        changes["message"] = message.model_copy(update={"response_metadata": metadata})
    return generation.model_copy(update=changes)  # type: ignore[no-any-return]
