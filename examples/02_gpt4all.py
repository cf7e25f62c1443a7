"""The old guide's second example: a local model. Needs `pip install gpt4all langchain-community`.

Today's GPT4All refuses the guide's `n_ctx=512`: the context's length now comes from the model file.
"""

import os

from langchain_community.llms import GPT4All

from pltrack import PromptLayerCallbackHandler

model = GPT4All(
    model=os.environ.get("GPT4ALL_MODEL", "./models/gpt4all-model.bin"),
    n_threads=int(os.environ.get("GPT4ALL_THREADS", "8")),  # more than there are cores is very slow
)
callbacks = [PromptLayerCallbackHandler(pl_tags=["langchain", "gpt4all"])]

response = model.invoke(
    "Once upon a time, ",
    config={"callbacks": callbacks},
)
print(response)
