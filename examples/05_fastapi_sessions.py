"""A session for each request of a web app: `uvicorn --app-dir examples 05_fastapi_sessions:app`."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from langchain_openai import ChatOpenAI

import pltrack.asgi
from pltrack import Session

app = FastAPI()
app.add_middleware(pltrack.asgi.SessionMiddleware, tags=["web"], metadata=lambda scope: {"path": scope["path"]})
model = ChatOpenAI(model="gpt-4o-mini")


@app.get("/ask")
async def ask(question: str, s: Annotated[Session, Depends(pltrack.asgi.session)]) -> dict[str, Any]:
    """Answer, and give the client the ids under which it may send a score later."""
    answer = await model.ainvoke(question)
    return {"answer": answer.text, "ids": s.ids}


@app.get("/stream")
async def stream(question: str) -> StreamingResponse:
    """Stream the answer: the session stays open until the last byte is sent."""

    async def body() -> AsyncIterator[str]:
        async for chunk in model.astream(question):
            yield chunk.text

    return StreamingResponse(body(), media_type="text/plain")


@app.post("/score/{request_id}")
def score(request_id: str, value: int) -> int:
    """Take a user's judgement, minutes or days later."""
    return pltrack.request(request_id).score(value)
