"""An English and a Korean film review, the words painted by what they say for the decision: the README's picture.

python examples/reviews_picture.py reviews.png     (needs the extra "korean")
"""

from __future__ import annotations

import sys

import relprop
from relprop import text, zoo

REVIEWS = {
    "reviews-en": "Beautiful pictures and a fine score, but the story is dull and I did not care about anyone in it.",
    "reviews-ko": "영상미는 좋은데 스토리가 너무 뻔해서 지루했어요 ㅠㅠ",
}


def main(path: str) -> None:
    explained = [
        relprop.explain_text(zoo.load(name), zoo.text_entry(name).tokenizer, review) for name, review in REVIEWS.items()
    ]
    text.save(explained, path)


if __name__ == "__main__":
    main(sys.argv[1])
