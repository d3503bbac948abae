"""What training took, from the records of run folders: one line an arm."""

import json
import sys
from pathlib import Path

KEPT = ("arm", "status", "reason", "method", "trainable_parameters", "layout", "gradient_checkpointing", "adapter_bytes")
SHOWN = ("wall_s", "median_step_s", "tokens", "energy_j")


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        for file in sorted((folder / "training").glob("*.json")):
            record = json.loads(file.read_text(encoding="utf-8"))
            line = {"run": folder.name} | {key: record[key] for key in KEPT if record.get(key)}
            for phase in record.get("phases") or []:
                sizes = {
                    key.replace("_bytes", "_gib"): round(phase[key] / 2**30, 3) for key in phase if key.endswith("_bytes") and phase[key]
                }
                line[phase["name"]] = {key: round(phase[key], 3) for key in SHOWN if phase.get(key)} | sizes
            print(json.dumps(line))


if __name__ == "__main__":
    main()
