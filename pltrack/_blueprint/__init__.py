"""LangChain's messages, results and parameters as PromptLayer's Prompt Blueprint: pure functions, no I/O."""
