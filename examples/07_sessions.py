"""Sessions gather whatever is called in them: nested ones, batches, async code, agents."""

import asyncio

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from pltrack import pl_session

model = ChatOpenAI(model="gpt-4o-mini")


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def later() -> None:
    """Batch in async code: the session goes where the tasks go."""
    async with pl_session("abatch", tags=["async"]) as inner:
        await model.abatch(["one", "two", "three"])
        inner.score(70)


with pl_session("day", tags=["demo"], metadata={"release": 42}, user="u-7") as s:
    with pl_session("batch", tags=["batch"]):
        model.batch(["red", "green"])
    asyncio.run(later())
    agent = create_agent(model, [add])
    agent.invoke({"messages": [("user", "Use the tool to add 1 and 1.")]})
    s.score(90, name="day")  # about all of them
    s.last.score(100, name="last")

print(f"{s.usage.calls} calls, {s.usage.input_tokens} tokens in, {s.usage.output_tokens} out")
print("PromptLayer's ids:", s.request_ids)
