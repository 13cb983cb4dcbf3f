"""What every page of ours is made with: templates, JSON, compressed answers, links, names of downloads."""

import datetime
import functools
import gzip
from typing import Any
from urllib.parse import quote, urlencode

import bottle  # type: ignore[import-untyped]

from hpo import strict_json
from hpo.compare.render import environment
from hpo.dashboard.guard import PREFIX, Access
from hpo.launchers.progress import format_seconds


def page(template: str, access: Access, **values: Any) -> str:
    """A whole page as HTML."""
    bottle.response.content_type = "text/html; charset=utf-8"
    values = {"prefix": PREFIX, "access": access, "live_url": None, "token": "", **values}
    return str(templates().get_template(template).render(**values))


@functools.cache
def templates() -> Any:
    """The templates with the filters that only our pages have: ``duration`` of seconds, ``moment`` of a timestamp."""
    made = environment()
    made.filters["duration"] = duration
    made.filters["moment"] = moment
    return made


def duration(seconds: float | None) -> str:
    """A duration; below ten seconds with two digits, so that quick trials differ. A dash for None."""
    if seconds is None:
        return "–"
    return f"{seconds:.2g} s" if 0 < seconds < 9.95 else format_seconds(seconds)


def moment(timestamp: float | None) -> str:
    """A date and time of this machine's clock; a dash for None."""
    if timestamp is None:
        return "–"
    return datetime.datetime.fromtimestamp(timestamp).astimezone().strftime("%Y-%m-%d %H:%M")


def as_json(content: dict[str, Any]) -> bytes | str:
    """An answer of JSON, compressed if it is large and the browser takes that."""
    bottle.response.content_type = "application/json"
    text = strict_json.dumps(content)
    return text if len(text) < 1500 else compressed(gzip.compress(text.encode(), 5), text)


def compressed(packed: bytes, text: str) -> bytes | str:
    """``packed`` for a browser that takes gzip, else ``text``."""
    bottle.response.set_header("Vary", "Accept-Encoding")
    if "gzip" not in bottle.request.get_header("Accept-Encoding", ""):
        return text
    bottle.response.set_header("Content-Encoding", "gzip")
    return packed


def experiment_link(name: str) -> str:
    return f"{PREFIX}/experiment?{urlencode({'name': name})}"


def attachment(name: str) -> str:
    """``Content-Disposition`` of a download whose name may hold any characters."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name.replace('/', '_'), safe='')}"
