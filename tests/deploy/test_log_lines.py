"""Logs as JSON, whoever wrote the line."""

import json

from deploy.log_lines import json_lines

LINES = {
    "\x1b[92mINFO \x1b[0m:      Starting Flower SuperLink": {
        "level": "INFO",
        "message": "Starting Flower SuperLink",
    },
    "WARNING :   \t a { brace": {"level": "WARNING", "message": "a { brace"},
    "2026-11-26T19:13:22.632Z INFO [uvicorn.error] Started server process [2]": {
        "time": "2026-11-26T19:13:22.632Z",
        "level": "INFO",
        "message": "Started server process [2]",
    },
    "2026-11-26 19:13:22,632 node-0 started, pid 3": {
        "time": "2026-11-26 19:13:22,632",
        "message": "node-0 started, pid 3",
    },
    '{"time": "t", "level": "INFO", "message": "round 1/2 · é"}': {
        "time": "t",
        "level": "INFO",
        "message": "round 1/2 · é",
    },
    "{ no JSON": {"message": "{ no JSON"},
    "snowdrop: “quotes” and \\": {"message": "snowdrop: “quotes” and \\"},
}


def test_every_line_is_an_object_with_its_process_and_message() -> None:
    told = json_lines([*LINES, "", "   "], "node-0").splitlines()
    assert [json.loads(line) for line in told] == [
        {"process": "node-0", **fields} for fields in LINES.values()
    ]
