"""LangChain: the place of its chat model, which is not written yet."""
