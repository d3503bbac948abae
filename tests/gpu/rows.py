"""What training took, from the records of run folders: one line an arm."""

import json
import sys
from pathlib import Path


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        for file in sorted((folder / "training").glob("*.json")):
            record = json.loads(file.read_text(encoding="utf-8"))
            shown = {key: record[key] for key in ("arm", "status", "reason", "method", "trainable_parameters", "layout") if record.get(key)}
            for phase in record.get("phases") or []:
                peaks = {key: round(phase[key] / 2**30, 3) for key in phase if key.endswith("_bytes") and phase[key]}
                shown[phase["name"]] = {"wall_s": round(phase["wall_s"] or 0, 2), "median_step_s": phase.get("median_step_s")} | peaks
            print(json.dumps({"run": folder.name} | shown))


if __name__ == "__main__":
    main()
