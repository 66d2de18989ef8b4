"""What did the article measure? Its figures, on a GeForce RTX 2080 with a model of 303 ms.

Source: Yannick Wolff, "Optimize the response time of your machine learning API in production", 2020,
https://www.sicara.ai/blog/optimize-response-time-api

Rules:
- Only what its text says is here. Its charts have more points, without numbers.
"""

from __future__ import annotations

from typing import Final

TITLE: Final = "Optimize the response time of your machine learning API in production"
AUTHOR: Final = "Yannick Wolff"
URL: Final = "https://www.sicara.ai/blog/optimize-response-time-api"

BARE_S: Final = 0.303

MEANS_S: Final[dict[str, dict[int, float]]] = {
    "a": {1: 0.332, 5: 0.431, 20: 4.1},
    "b": {20: 4.1 / 2},  # "almost halved"
    "c": {1: 0.332 + 0.5, 20: 4.1 / 6},  # "500 ms more"; "six times shorter"
}
"""Mean response time: set-up -> users -> seconds.

Its TensorFlow Serving, (d), was better than its (c); no number says by how much.
"""
