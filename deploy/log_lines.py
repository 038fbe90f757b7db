"""Lines of the processes' logs as JSON objects, whoever wrote them."""

import json
import re
from collections.abc import Iterable

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FLOWER = re.compile(r"^(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) *: +(?P<message>.*)$")
_UVICORN = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\dT[\d:.]+Z) (?P<level>[A-Z]+) \[[\w.]+\] (?P<message>.*)$"
)
_SUPERVISOR = re.compile(r"^(?P<time>\d{4}-\d\d-\d\d [\d:,]+) (?P<message>.*)$")


def json_lines(lines: Iterable[str], process: str) -> str:
    """Each line of a log as a JSON object: ``process``, ``message``, and what the line tells.

    Flower's lines tell their ``level``, some also their ``time``. A line that is a JSON object
    already keeps its fields. Empty lines are left out.

    Parameters
    ----------
    lines : Iterable[str]
    process : str
        Whose log it is.
    """
    plain = (_COLOURS.sub("", line).rstrip() for line in lines)
    told = ({"process": process, **_fields(line)} for line in plain if line.strip())
    return "".join(json.dumps(fields, ensure_ascii=False) + "\n" for fields in told)


def _fields(line: str) -> dict[str, object]:
    if line.startswith("{"):
        try:
            fields: dict[str, object] = json.loads(line)
        except ValueError:
            pass
        else:
            return fields
    for form in (_FLOWER, _UVICORN, _SUPERVISOR):
        if match := form.match(line):
            return {**match.groupdict(), "message": match["message"].strip()}
    return {"message": line}
