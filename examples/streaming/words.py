"""A story, word by word: `predict` is a generator, and each value that it yields is sent at once."""

import asyncio

STORY = "Once upon a time there was a server that spoke before it had finished thinking"


def example():
    return {"words": 3}


async def predict(item: dict):
    for word in STORY.split()[: item["words"]]:
        await asyncio.sleep(0.2)  # a language model would compute here
        yield {"word": word}
