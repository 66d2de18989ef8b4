"""How easily does a text read? Flesch's reading ease: 90 is plain English, 30 is a contract.

paceline serve examples/python_function/readability.py
"""

import re


def predict(texts: list[str]):
    return [{"ease": round(ease(text), 1), "words": len(words(text))} for text in texts]


def example():
    return "The cat sat on the mat. It was warm."


def ease(text):
    count = max(1, len(words(text)))
    sentences = max(1, len(re.findall(r"[.!?]+", text)))
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", word))) for word in words(text))
    return 206.835 - 1.015 * count / sentences - 84.6 * syllables / count


def words(text):
    return re.findall(r"[a-z']+", text.lower())
