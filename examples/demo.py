"""A small LangChain app, tracked: `python examples/demo.py`. No account, no key, no network.

`make demo` tells more of the story; this is the program to copy from.
"""

import tempfile

from langchain_core.language_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate

import pltrack
from pltrack import pl_session, tracked

# Only so that the example keeps to itself: a real app needs no configure() at all.
pltrack.configure(journal=tempfile.mkdtemp() + "/journal.db", delivery="off", api_key="")

prompt = ChatPromptTemplate([("system", "You name companies."), ("user", "A company that makes {product}.")])
pltrack.prompts.publish("name-a-company", prompt_template=prompt)
model = FakeListChatModel(responses=["Toast Masters", "Bread & Beyond"])


@tracked(tags=["naming"])
def name_company(product: str) -> str:
    """Ask the model, with the registry's prompt, which links itself to the request."""
    chain = pltrack.prompts.get("name-a-company") | model
    return str(chain.invoke({"product": product}).content)


with pl_session("workshop", tags=["demo"], metadata={"room": 4}, user="u-7") as s:
    for product in ("toasters", "bakeries"):
        print(f"{product}: {name_company(product)}")
    s.score(90)
    s.last.score(100, name="tone")

print(f"{s.usage.calls} calls were recorded; score them any day by these ids: {', '.join(s.ids)}")
pltrack.flush(5)
status = pltrack.status()
print(f"{status.pending} requests and notes wait in {status.journal}")
