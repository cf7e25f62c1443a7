"""The old guide's first example: a chat model whose calls carry a tag.

Needs OPENAI_API_KEY (and OPENAI_BASE_URL for another server) and PROMPTLAYER_API_KEY.
"""

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from pltrack import PromptLayerCallbackHandler

chat_llm = ChatOpenAI(
    temperature=0,
    callbacks=[PromptLayerCallbackHandler(pl_tags=["chatopenai"])],
)
llm_results = chat_llm.invoke(
    [
        HumanMessage(content="What comes after 1,2,3 ?"),
        HumanMessage(content="Tell me another joke?"),
    ]
)
print(llm_results)
