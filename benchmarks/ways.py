"""The ways of tracking that are measured side by side; each runs in a process of its own and sends to its own sink."""

from __future__ import annotations

import contextvars
import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tracers.context import register_configure_hook

_handler: contextvars.ContextVar[Any] = contextvars.ContextVar("handler", default=None)


class NoOpHandler(BaseCallbackHandler):
    """A handler that does nothing: the floor."""

    run_inline = raise_error = True
    ignore_chain = ignore_agent = ignore_retriever = ignore_retry = ignore_custom_event = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


class Way:
    """A no-op handler, and what the others have in common with it."""

    handler: Any = NoOpHandler()

    def __init__(self, url: str, folder: Path) -> None:
        register_configure_hook(_handler, inheritable=True)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Track what runs in the block."""
        token = _handler.set(self.handler)
        try:
            yield
        finally:
            _handler.reset(token)

    def flush(self) -> None:
        """Wait until everything is delivered."""

    def block(self) -> AbstractContextManager[Any] | None:
        """Return what stands around the calls that belong together; None where there is no such thing."""
        return self.on()

    def speak(self, ask: Callable[[], Any]) -> bool:
        """Make one call, score it, add metadata and link a prompt; return whether that was done."""
        return False

    def decorated(self, function: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return `function` tracked; None where there is no such thing."""

        @functools.wraps(function)
        def same(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return same


class Pltrack(Way):
    """This library."""

    def __init__(self, url: str, folder: Path) -> None:
        import pltrack

        self.pltrack = pltrack
        pltrack.configure(api_key="pl_bench", base_url=url, journal=folder / "journal.db")

    def on(self) -> AbstractContextManager[Any]:
        return self.pltrack.pl_session("bench")

    def flush(self) -> None:
        self.pltrack.flush(120)

    def block(self) -> AbstractContextManager[Any]:
        return self.pltrack.pl_session("bench")

    def speak(self, ask: Callable[[], Any]) -> bool:
        with self.pltrack.pl_session("bench") as session:
            ask()
            session.score(90)
            session.metadata(plan="pro")
            session.link_prompt("example", {"product": "toasters"}, version=1)
        return True

    def decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.pltrack.tracked(function)


class ByHandHandler(NoOpHandler):
    """The SDK's `log_request` in `on_llm_end`, as people write it."""

    def __init__(self, url: str) -> None:
        from promptlayer import PromptLayer

        self.client = PromptLayer(api_key="pl_bench", base_url=url)
        self.messages: Any = None
        self.started = 0.0
        self.last = 0

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        """Keep the input."""
        self.messages, self.started = messages[0], time.time()

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        """Send it, and wait for the answer."""
        said = [{"role": "user", "content": [{"type": "text", "text": each.content}]} for each in self.messages]
        text = response.generations[0][0].text
        answer = self.client.log_request(
            provider="openai",
            model="gpt-4o",
            input={"type": "chat", "messages": said},
            output={"type": "chat", "messages": [{"role": "assistant", "content": [{"type": "text", "text": text}]}]},
            request_start_time=self.started,
            request_end_time=time.time(),
        )
        self.last = answer["id"]


class ByHand(Way):
    """PromptLayer's SDK, called by hand: it waits for the answer."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        self.handler = ByHandHandler(url)

    def block(self) -> None:
        return None

    def speak(self, ask: Callable[[], Any]) -> bool:
        with self.on():
            ask()
        track, last = self.handler.client.track, self.handler.last
        track.score(request_id=last, score=90)
        track.metadata(request_id=last, metadata={"plan": "pro"})
        track.prompt(request_id=last, prompt_name="example", prompt_input_variables={"product": "toasters"}, version=1)
        return True

    def decorated(self, function: Callable[..., Any]) -> None:
        return None


class LangSmith(Way):
    """LangChain's own tracer."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        os.environ |= {"LANGSMITH_TRACING": "false", "LANGSMITH_ENDPOINT": url, "LANGSMITH_API_KEY": "ls_bench"}
        import langsmith
        from langchain_core.tracers import LangChainTracer

        self.langsmith, self.client = langsmith, langsmith.Client(api_url=url, api_key="ls_bench")
        self.handler = LangChainTracer(project_name="bench", client=self.client)

    def flush(self) -> None:
        self.client.flush()

    def block(self) -> AbstractContextManager[Any]:
        return self.langsmith.tracing_context(enabled=True, client=self.client)

    def decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.langsmith.traceable(client=self.client, enabled=True)(function)


class Langfuse(Way):
    """Langfuse's handler."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        os.environ |= {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk", "LANGFUSE_BASE_URL": url}
        import langfuse
        from langfuse.langchain import CallbackHandler

        self.langfuse, self.client = langfuse, langfuse.get_client()
        self.handler = CallbackHandler()

    def flush(self) -> None:
        self.client.flush()

    def block(self) -> AbstractContextManager[Any]:
        return self.langfuse.propagate_attributes(session_id="bench")

    def decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return self.langfuse.observe()(function)


class OpenInference(Way):
    """OpenInference's instrumentor, with OpenTelemetry's batch processor and OTLP exporter."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url, folder)
        from openinference.instrumentation import using_session
        from openinference.instrumentation.langchain import LangChainInstrumentor
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{url}/v1/traces")))
        self.instrumentor, self.using_session = LangChainInstrumentor(), using_session

    @contextmanager
    def on(self) -> Iterator[None]:
        self.instrumentor.instrument(tracer_provider=self.provider)
        try:
            yield
        finally:
            self.instrumentor.uninstrument()

    def flush(self) -> None:
        self.provider.force_flush()

    def block(self) -> AbstractContextManager[Any]:
        return self.using_session("bench")

    def decorated(self, function: Callable[..., Any]) -> None:
        return None


WAYS: dict[str, type[Way]] = {
    "no-op": Way,
    "pltrack": Pltrack,
    "SDK by hand": ByHand,
    "LangSmith": LangSmith,
    "Langfuse": Langfuse,
    "OpenInference": OpenInference,
}
