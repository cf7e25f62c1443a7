"""A small app: each call of a `@tracked` function is a session of its own, streams included."""

from collections.abc import Iterator

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

from pltrack import Session, current_session, tracked

prompt = ChatPromptTemplate([("system", "You answer in one line."), ("user", "{question}")])
chain = prompt | ChatOpenAI(model="gpt-4o-mini", temperature=0)


def approve(session: Session) -> None:
    """Score what the call gathered, when it is over."""
    session.score(80, name="approved")


@tracked(tags=["qa"], metadata=lambda question: {"length": len(question)}, on_end=approve)
def answer(question: str) -> str:
    """Answer a question."""
    text = chain.invoke({"question": question}).text
    session = current_session()
    if session is not None:  # None where pltrack is switched off
        session.metadata(words=len(text.split()))
    return text


@tracked(tags=["qa", "stream"])
def answer_slowly(question: str) -> Iterator[str]:
    """Answer a question word by word."""
    for chunk in chain.stream({"question": question}):
        yield chunk.text


print(answer("What comes after 1,2,3?"))
print("".join(answer_slowly("And after that?")))
