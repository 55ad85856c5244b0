"""The part of OpenAI's REST API that speaks audio, for its unmodified clients."""
