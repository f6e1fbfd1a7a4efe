"""Builds the book in both languages, with a page to choose one, and checks its links: python docs/build.py FOLDER."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from check_links import check
from sphinx.cmd.build import build_main

HERE = Path(__file__).parent
LANGUAGES = ("en", "ko")


def build(out: Path, languages: list[str]) -> int:
    """Exit code of the first build that fails, of the check of links otherwise; 0 if all went well."""
    for language in languages:
        places = [str(HERE / language), str(out / language)]
        options = ["-q", "-W", "--keep-going", "-c", str(HERE), "-D", f"language={language}"]
        code = build_main([*options, "-d", str(out / ".doctrees" / language), *places])
        if code:
            return code
    shutil.copyfile(HERE / "_templates" / "landing.html", out / "index.html")
    return check(out) if languages == list(LANGUAGES) else 0


def settle_kernels(home: Path) -> None:
    """Kernels of their own settings: no startup files of the user's, and no warning that they talk on this machine."""
    profile = home / "profile_default"
    profile.mkdir()
    settings = {"IPKernelApp": {"log_level": 40}}
    (profile / "ipython_kernel_config.json").write_text(json.dumps(settings), encoding="utf-8")
    os.environ["IPYTHONDIR"] = str(home)
    # tqdm, which other libraries import, asks for widgets in every kernel.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    kept = "what its cells gave is kept there: remove it to have them run anew"
    parser.add_argument("out", type=Path, metavar="FOLDER", help=f"where the pages go; {kept}")
    parser.add_argument("--language", choices=LANGUAGES, help="build only this one, and check no links")
    asked = parser.parse_args()
    with TemporaryDirectory() as home:
        settle_kernels(Path(home))
        return build(asked.out, [asked.language] if asked.language else list(LANGUAGES))


if __name__ == "__main__":
    sys.exit(main())
