"""Fine-tuning rows of at least so many characters, in the schema of HuggingFaceH4/Multilingual-Thinking: the stories' own, repeated."""

import argparse
import json
from pathlib import Path

STORIES = Path(__file__).parents[2] / "suites" / "stories" / "train.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--characters", type=int, default=8000)
    parser.add_argument("--rows", type=int, default=200)
    asked = parser.parse_args()
    with asked.out.open("w", encoding="utf-8") as file:
        for line in STORIES.read_text(encoding="utf-8").splitlines()[: asked.rows]:
            row = json.loads(line)
            row.pop("messages", None)  # the columns say the same
            row["analysis"] = " ".join([row["analysis"]] * (asked.characters // len(row["analysis"]) + 1))
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
