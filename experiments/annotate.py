"""The page where people mark the URL paths of mathematics.

python -m experiments.annotate --workdir=runs/mine

Mine with --config.annotation=people first: after a round, mining stops and this page shows what it offers. Mark, export
(on the page, or by --export), then go on with mining by the line that began it.
"""

import pathlib

from absl import flags

from dsmath.runs import driver, pages
from dsmath.web.annotate.annotation import Annotation
from dsmath.web.annotate.app import make_app

_WORKDIR = flags.DEFINE_string("workdir", None, "workdir of experiments.mine; the marks are kept there too")
_PORT = flags.DEFINE_integer("port", 8080, "port on 127.0.0.1; 0 takes a free one", 0, 65535)
_USER = flags.DEFINE_string("user", "", "who marks; without it the page asks each browser once")
_EXPORT = flags.DEFINE_bool("export", False, "write the marks for mining to go on with, and serve nothing")
_SUGGEST_SCORE = flags.DEFINE_float(
    "suggest_score", 0.3, "a path is suggested where its uncollected pages' mean score reaches this", 0.0, 1.0
)
_SUGGEST_PAGES = flags.DEFINE_integer("suggest_pages", 5, "uncollected pages that a suggested path has at least", 1)
flags.mark_flag_as_required("workdir")


def start() -> None:
    """Serves the page until it is interrupted, or exports."""
    workdir = pathlib.Path(_WORKDIR.value)
    annotation = Annotation(workdir, suggest_score=_SUGGEST_SCORE.value, suggest_pages=_SUGGEST_PAGES.value)
    if _EXPORT.value:
        exported = annotation.export()
        print(f"{exported['including']} patterns of mathematics, {exported['excluding']} exclusions:")
        print(*exported["files"], sep="\n")
        print(f"go on with mining by the line that began it: {exported['command']}")
        return
    with pages.listen(_PORT.value) as listener:
        port = listener.getsockname()[1]
        print(f"annotate: http://{pages.HOST}:{port}/  (Ctrl-C ends; every mark is saved as it is made)", flush=True)
        pages.serve(make_app(annotation, _USER.value), listener)


if __name__ == "__main__":
    driver.run_program("annotate", start)
