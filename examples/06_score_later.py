"""Score calls from another process: `06_score_later.py ask ids.txt`, later `06_score_later.py score ids.txt`."""

import sys
from pathlib import Path

import pltrack


def ask(ids: Path) -> None:
    """Ask the model, and write down the calls' ids: they are known at once."""
    from langchain_openai import ChatOpenAI

    with pltrack.pl_session("ask", tags=["later"]) as s:
        for question in ("What comes after 1,2,3?", "And after that?"):
            print(ChatOpenAI(model="gpt-4o-mini").invoke(question).text)
    ids.write_text("\n".join(s.ids))


def score(ids: Path) -> None:
    """Score what was asked, whether PromptLayer has it by now or not."""
    for each in ids.read_text().split():
        request = pltrack.request(each)
        request.score(95, name="human")
        request.metadata(judge="ann")
    print(pltrack.flush(10))


if __name__ == "__main__":
    mode, file = sys.argv[1:]
    {"ask": ask, "score": score}[mode](Path(file))
