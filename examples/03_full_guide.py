"""The old guide's full example: score, metadata and prompt link by id, and a prompt of the registry.

The registry must hold a prompt "example" with a variable {product}.
"""

from langchain_openai import OpenAI

import pltrack as promptlayer
from pltrack import PromptLayerCallbackHandler


def pl_id_callback(promptlayer_request_id):
    print("prompt layer id ", promptlayer_request_id)
    promptlayer.track.score(request_id=promptlayer_request_id, score=100)  # score is an integer 0-100
    promptlayer.track.metadata(request_id=promptlayer_request_id, metadata={"foo": "bar"})
    promptlayer.track.prompt(
        request_id=promptlayer_request_id,
        prompt_name="example",
        prompt_input_variables={"product": "toasters"},
        version=1,
    )


openai_llm = OpenAI(
    model_name="gpt-3.5-turbo-instruct",
    callbacks=[PromptLayerCallbackHandler(pl_id_callback=pl_id_callback)],
)

example_prompt = promptlayer.prompts.get("example", version=1, langchain=True)
openai_llm.invoke(example_prompt.format(product="toasters"))
