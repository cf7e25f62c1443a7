"""Test your program's tracking without PromptLayer: a fake server here, fixtures in the pytest plugin.

with FakePromptLayer(api_key="pl_test") as pl:
    pltrack.configure(api_key=pl.api_key, base_url=pl.url)
    run_my_program()
    pl.wait_for(lambda pl: len(pl.requests) == 3)
"""

from ._exchange import Call
from ._faults import Fault
from ._server import FakePromptLayer
from ._workspace import Logged

__all__ = ["Call", "FakePromptLayer", "Fault", "Logged"]
