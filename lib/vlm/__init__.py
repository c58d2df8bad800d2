"""Asking a vision model about pictures, at any address that speaks OpenAI's chat completions.

client     one question, with retries, the ladder of answer formats, and what ends the whole run
answers    from what a model wrote to a verdict, or why it is none; pure
prompts    the questions, in files with a version in their name
"""
